/** A peer that is a folder: what its files are called, and what stands in them. Pure; the disk is src/client/folder. */
export { isTemporary, type Pattern, patternFaults, readPattern } from './pattern.ts'
export { type FileChanges, readJsonFile } from './read.ts'
export {
  FOLDER_AFTER,
  FOLDER_FORMATS,
  FOLDER_LAYOUTS,
  type FolderAfter,
  type FolderFault,
  type FolderFormat,
  type FolderLayout,
  type FolderSettings,
  type FolderWish,
  folderFaults,
  folderSettings,
  readFormatOf,
} from './settings.ts'
export {
  fillTemplate,
  numbered,
  TEMPLATE_VARIABLES,
  type TemplateFacts,
  templateFaults,
} from './template.ts'
export {
  type FilePiece,
  type FileRecord,
  type FileState,
  fileFoot,
  fileHead,
  filePiece,
  fitsFile,
  isTold,
  NEW_FILE,
} from './write.ts'
