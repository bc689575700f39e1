import type { MessageInitShape } from '@bufbuild/protobuf';
import type { GroupFiles, OpenFile } from '../../../model/file.ts';
import type { UnixSocket } from '../../../model/socket.ts';
import type { Terminal } from '../../../model/terminal.ts';
import type { ImageDirectory, PageSource } from '../image.ts';
import type { FdTypes, FileEntrySchema } from '../proto/gen/files_pb.ts';

type FileEntry = MessageInitShape<typeof FileEntrySchema>;

/** The member of a `FileEntry` that is about the file's kind. */
export type EntryOfKind = Pick<FileEntry, Exclude<keyof FileEntry, 'type' | 'id' | `$${string}`>>;

/** What files of a group name by a number. */
export interface FileReferences {
  readonly terminals: ReadonlyMap<number, Terminal>;
  /** By their inode. */
  readonly unixSockets: ReadonlyMap<number, UnixSocket>;
}

/** What the images have of a kind of open file; `file_desc_ops` of CRIU is what it is read with. */
export interface ImageKind<File extends OpenFile> {
  /** What CRIU takes the file for, in its entry and in tables of descriptors. */
  readonly fileType: FdTypes;
  /** Throws an Error if the file names something that the model does not have. */
  entry(file: File, references: FileReferences): EntryOfKind;
  /** The file as CRIU is told of it, where that is another kind. */
  as?(file: File): OpenFile;
  /** Files that CRIU has to read before this one. */
  before?(file: File, references: FileReferences): readonly OpenFile[];
  /** Writes what else there is of the file, in other images. */
  also?(file: File, images: ImageDirectory, source: PageSource): void;
  /** Writes what files of the kind have in common, in other images; once, whether or not any is open. */
  shared?(files: GroupFiles, images: ImageDirectory, source: PageSource): void;
}
