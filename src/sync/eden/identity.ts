const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
const URN_UUID = 'urn:uuid:'
const OWN = 'urn:syncline:'

/**
 * The name of a record at Eden. Eden puts its own domain in front of what does not begin with `urn:`, and two sites of one name collide: so
 * everything goes out as an urn, and comes back as what it was.
 */
export function edenUuid(id: string, uuidKey: boolean): string {
  if (uuidKey) return `${URN_UUID}${id}`
  const named = (id.startsWith('urn:') && !id.startsWith(OWN)) || id.slice(1, -1).includes('/')
  return named ? id : `${OWN}${id}`
}

/** The id here of a record of Eden: the inverse of edenUuid, and any other name to the letter. */
export function idOfEdenUuid(uuid: string, uuidKey: boolean): string {
  if (uuidKey) return uuid.toLowerCase().startsWith(URN_UUID) ? uuid.slice(URN_UUID.length).toLowerCase() : uuid
  return uuid.startsWith(OWN) ? uuid.slice(OWN.length) : uuid
}

/** The UUID of a site from what Eden calls a repository, in lower case; undefined for what holds none. */
export function siteOfRepository(repository: string): string | undefined {
  const bare = repository.trim().toLowerCase()
  const uuid = bare.startsWith(URN_UUID) ? bare.slice(URN_UUID.length) : bare
  return UUID.test(uuid) ? uuid : undefined
}

/** What a site calls itself towards Eden. */
export function repositoryOfSite(uuid: string): string {
  return `${URN_UUID}${uuid}`
}
