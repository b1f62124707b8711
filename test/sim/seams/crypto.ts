/** node:crypto of simulated sites: random bytes are those of the seed. */
import * as real from 'node:crypto'
import { machine } from '../machine.ts'

export * from 'node:crypto'

export function randomBytes(size: number): Buffer {
  return Buffer.from(Array.from({ length: size }, () => machine.byte()))
}

export function randomUUID(): string {
  const hex = randomBytes(16).toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`
}

export const timingSafeEqual = real.timingSafeEqual
