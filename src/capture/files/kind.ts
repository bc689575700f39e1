import type { File } from '../../linux/fs.ts';
import type { OpenFile } from '../../model/file.ts';
import type { PathFile } from '../../model/open-file.ts';
import type { MappedFile, MappingUse } from '../file-capture.ts';
import type { CaptureContext } from './context.ts';

/**
 * Captures an open file of one kind. `idOf` captures another one, for files that lead to others. Throws a
 * FileRefusal if it cannot be brought back, a VmcoreError if its structures are damaged.
 */
export type CaptureFile = (
  context: CaptureContext,
  file: File,
  idOf: (address: bigint) => number,
) => OpenFile;

/** What stands behind a mapping of a file of one kind. Throws as `CaptureFile`. */
export type MapFile = (context: CaptureContext, file: File, use: MappingUse) => MappedFile;

/** What the capture knows of a kind of open file once it is captured. */
export interface CaptureKind<Captured extends OpenFile> {
  /** With its article: `a pipe`. */
  readonly name: string;
  /**
   * Of a kind whose holders need not come back together: what they no longer share with an outsider, for a
   * note. Other kinds are refused if somebody holds them who is not protected.
   */
  parted?(file: Captured, outsider: string): string | undefined;
  /**
   * Whether those who hold the file and do not come back no longer matter to it, by the address of its struct
   * file.
   */
  isParted?(context: CaptureContext, address: bigint): boolean;
  /** The files that it is opened again by. */
  pathFiles?(file: Captured): readonly PathFile[];
  /** The shared memory that is its content. */
  shmid?(file: Captured): number;
  /** Other paths that it needs the directories of. */
  otherPaths?(file: Captured): readonly string[];
}

/** Memory without a path, which can be open and can be mapped. */
export interface MemoryKind {
  readonly open: CaptureFile;
  readonly map: MapFile;
}

/** What of all captured files is a group's. */
export interface GroupSelection {
  readonly context: CaptureContext;
  readonly pids: ReadonlySet<number>;
  /** The mount namespace that they are in. */
  readonly namespace: bigint;
  readonly files: readonly OpenFile[];
  /** The files that these are opened again by. */
  readonly pathFiles: readonly PathFile[];
  /** Shared memories that are the content of these. */
  readonly shmids: ReadonlySet<number>;
  /** All paths whose directories have to be there. */
  readonly paths: readonly string[];
}
