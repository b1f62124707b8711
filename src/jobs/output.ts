/** Output of a step, of which the beginning and the end are kept. */
export type BoundedOutput = {
  readonly add: (line: string) => void
  readonly text: () => string
  /** Goes up whenever something was added. */
  readonly version: () => number
}

/** Lines longer than this are cut. */
const LINE_MAX = 4_096

/** Keeps a quarter of `max` characters from the beginning and the rest from the end. */
export function createOutput(max: number): BoundedOutput {
  const headMax = Math.floor(max / 4)
  const tailMax = max - headMax
  let head = ''
  let headFull = false
  const tail: string[] = []
  let tailLength = 0
  let dropped = 0
  let version = 0
  return {
    add: (given) => {
      version += 1
      const line = `${given.length > LINE_MAX ? `${given.slice(0, LINE_MAX)}…` : given}\n`
      if (!headFull && head.length + line.length <= headMax) {
        head += line
        return
      }
      headFull = true
      tail.push(line)
      tailLength += line.length
      while (tailLength > tailMax && tail.length > 0) {
        const gone = tail.shift() ?? ''
        tailLength -= gone.length
        dropped += gone.length
      }
    },
    text: () => `${head}${dropped > 0 ? `… ${dropped} characters left out …\n` : ''}${tail.join('')}`,
    version: () => version,
  }
}
