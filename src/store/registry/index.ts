export {
  DIRECTIONS,
  type Direction,
  findGrant,
  type Grant,
  listGrants,
  type NewGrant,
  removeGrant,
  setGrant,
} from './grants.ts'
export {
  createInvitation,
  type GrantOffer,
  type Invitation,
  listInvitations,
  type Offer,
  redeemInvitation,
  removeInvitation,
} from './invitations.ts'
export {
  everyItem,
  isRowId,
  olderThan,
  type Page,
  type PageQuery,
  pageBounds,
  toPage,
} from './page.ts'
export type { Credentials } from './peer-input.ts'
export { notePeerFailure, notePeerSeen, notePeerSuccess, type PeerSighting, peerLogChanged } from './peer-state.ts'
export {
  createPeer,
  findPeer,
  listPeers,
  lookupPeer,
  type NewPeer,
  type Peer,
  type PeerConnection,
  type PeerSettings,
  pausePeer,
  peerConnection,
  removePeer,
  resumePeer,
  updatePeer,
} from './peers.ts'
export { type SecretPlace, seal, secretHash, unseal } from './secrets.ts'
export {
  ensureSelf,
  keyFingerprint,
  newLog,
  readSelf,
  renameSite,
  type Self,
  type SelfEntry,
  verifySignature,
} from './self.ts'
export { clearSetting, getSetting, listSettings, replaceSetting, setSetting } from './settings.ts'
export { originsOf, siteIds } from './sites.ts'
export {
  createTask,
  findTask,
  findTaskFor,
  listTasks,
  type NewTask,
  ON_LEFT,
  type OnLeft,
  removeTask,
  type Task,
  type TaskQuery,
  type TaskSettings,
  updateTask,
} from './tasks.ts'
export {
  type Caller,
  ensureAdministrator,
  findToken,
  type IssuedToken,
  issueToken,
  listTokens,
  type NewToken,
  ROLES,
  type Role,
  revokeToken,
  rotatePeer,
  type Token,
} from './tokens.ts'
export { inTransaction, sqlState } from './transaction.ts'
export { type BrakeLimitSettings, checkLink, isoTime, type LinkRuleSettings, type LinkRules } from './values.ts'
