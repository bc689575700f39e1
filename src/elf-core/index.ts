export { NoCoreError } from './process.ts';
export { CoreWriteError, type PageCounts, type WrittenCore, writeCore } from './write-core.ts';
