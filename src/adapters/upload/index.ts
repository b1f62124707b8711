export { UPLOAD_SCHEMA, type Upload, uploadFaults } from './settings.ts'
export { type PlannedUpload, planUpload, runUpload, type UploadResult, uploadLabel } from './upload.ts'
