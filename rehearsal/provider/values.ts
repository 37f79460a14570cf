// Terraform's values as they travel: MessagePack, with a mark for what is not known yet.
import { decode, ExtensionCodec, encode } from '@msgpack/msgpack'

/** A value that is known only after apply. */
export class Unknown {}
export const UNKNOWN = new Unknown()

export type Value = null | boolean | number | string | Unknown | Uint8Array | Value[] | { [name: string]: Value }
export type Values = { [name: string]: Value }

export type DynamicValue = { msgpack?: Uint8Array; json?: Uint8Array }

const extensionCodec = new ExtensionCodec()
extensionCodec.register({
  type: 0,
  encode: (value) => (value instanceof Unknown ? new Uint8Array([0]) : null),
  decode: () => UNKNOWN,
})
// An unknown value of which something is known, such as that it is not null.
extensionCodec.register({ type: 12, encode: () => null, decode: () => UNKNOWN })

/** @returns the object that was sent; null for none */
export function unpack(sent: DynamicValue | null | undefined): Values | null {
  if (sent?.msgpack?.length) return decode(sent.msgpack, { extensionCodec }) as Values | null
  if (sent?.json?.length) return JSON.parse(Buffer.from(sent.json).toString('utf8')) as Values | null
  return null
}

export const pack = (value: Value): DynamicValue => ({ msgpack: encode(value, { extensionCodec }) })

export const isObject = (value: Value | undefined): value is Values =>
  typeof value === 'object' &&
  value !== null &&
  !Array.isArray(value) &&
  !(value instanceof Unknown) &&
  !(value instanceof Uint8Array)

/** What providers on the older SDK do not tell from an attribute that is not set. */
export const isZero = (value: Value | undefined): boolean =>
  value === undefined ||
  value === null ||
  value === '' ||
  value === 0 ||
  value === false ||
  (Array.isArray(value) && value.length === 0) ||
  (isObject(value) && Object.keys(value).length === 0)

/** Deep equality; sets compare without order. */
export function equal(one: Value | undefined, other: Value | undefined, unordered = false): boolean {
  if (one === other) return true
  if (one instanceof Unknown || other instanceof Unknown) return one instanceof Unknown && other instanceof Unknown
  if (Array.isArray(one) && Array.isArray(other)) {
    if (one.length !== other.length) return false
    if (one.every((item, index) => equal(item, other[index]))) return true
    return unordered && one.every((item) => other.some((candidate) => equal(item, candidate)))
  }
  if (isObject(one) && isObject(other))
    return [...new Set([...Object.keys(one), ...Object.keys(other)])].every((name) =>
      equal(one[name] ?? null, other[name] ?? null),
    )
  return false
}
