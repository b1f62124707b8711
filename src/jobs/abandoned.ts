/** Why a run ends here that is another process's, or will be in a moment: what it started has to end before that one begins. */
export class Abandoned extends Error {
  override readonly name = 'Abandoned'
}
