/** Tables of the scripted Eden: organisations with offices, sectors and locations. */

export type EdenField = {
  /** As Eden names it: string, text, integer, double, boolean, date, datetime, upload, json, list:string, reference TABLE. */
  readonly type: string
  readonly required?: boolean
  /** Only a text node, as fields without a representation function have it. */
  readonly bare?: boolean
  readonly onDelete?: 'RESTRICT' | 'CASCADE' | 'SET NULL'
  readonly valid?: (value: unknown) => string | null
}

export type EdenTable = {
  readonly fields: Readonly<Record<string, EdenField>>
  /** Component tables with their foreign key. */
  readonly components?: Readonly<Record<string, string>>
}

const string: EdenField = { type: 'string' }
const year = (value: unknown) =>
  Number.isInteger(value) && (value as number) >= 1850 && (value as number) <= 2099
    ? null
    : 'Enter an integer between 1850 and 2099'

export const ORGANISATIONS: Readonly<Record<string, EdenTable>> = {
  gis_location: {
    fields: {
      name: { type: 'string', bare: true },
      level: string,
      lat: { type: 'double' },
      lon: { type: 'double' },
      inherited: { type: 'boolean' },
      parent: { type: 'reference gis_location', onDelete: 'RESTRICT' },
    },
  },
  org_sector: { fields: { name: { type: 'string', bare: true, required: true }, abrv: string } },
  org_organisation: {
    fields: {
      name: { type: 'string', bare: true, required: true },
      acronym: string,
      year: { type: 'integer', valid: year },
      website: string,
      comments: { type: 'text', bare: true },
      founded: { type: 'date' },
      root_organisation: { type: 'reference org_organisation', onDelete: 'SET NULL' },
      logo: { type: 'upload' },
    },
    components: { org_office: 'organisation_id', org_sector_organisation: 'organisation_id' },
  },
  org_office: {
    fields: {
      name: { type: 'string', bare: true, required: true },
      code: { type: 'string', bare: true },
      obsolete: { type: 'boolean' },
      opened_at: { type: 'datetime' },
      organisation_id: { type: 'reference org_organisation', onDelete: 'RESTRICT' },
      location_id: { type: 'reference gis_location', onDelete: 'RESTRICT' },
    },
  },
  org_sector_organisation: {
    fields: {
      organisation_id: { type: 'reference org_organisation', required: true, onDelete: 'CASCADE' },
      sector_id: { type: 'reference org_sector', required: true, onDelete: 'RESTRICT' },
    },
  },
}
