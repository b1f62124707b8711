export { type TakenOver, takeOverRsyncDirector } from './rsyncdirector.ts'
