/** Documents of S3XML as a tree, for the scripted Eden. */
import { SaxesParser } from 'saxes'

export type Element = {
  readonly name: string
  readonly attributes: Readonly<Record<string, string>>
  readonly children: Element[]
  text: string
}

export function xmlText(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll('\n', '&#10;')
}

/** An element with all that stands in it. */
export function all(element: Element): Element[] {
  return [element, ...element.children.flatMap(all)]
}

/** A document as a tree; throws what the parser says. */
export function parseDocument(body: Buffer): Element {
  const parser = new SaxesParser()
  const top: Element = { name: '', attributes: {}, children: [], text: '' }
  const path = [top]
  parser.on('error', (error) => {
    throw error
  })
  parser.on('opentag', ({ name, attributes }) => {
    const element: Element = { name, attributes, children: [], text: '' }
    path.at(-1)?.children.push(element)
    path.push(element)
  })
  parser.on('text', (text) => {
    const element = path.at(-1)
    if (element !== undefined) element.text += text
  })
  parser.on('closetag', () => void path.pop())
  parser.write(new TextDecoder('utf-8', { fatal: true }).decode(body)).close()
  const [root] = top.children
  if (root === undefined) throw new Error('Document is empty')
  return root
}
