import type { FdTable, GroupFiles, OpenFile } from '../../../model/file.ts';
import type { ImageDirectory, PageSource } from '../image.ts';
import { FdinfoEntrySchema, FileEntrySchema } from '../proto/gen/files_pb.ts';
import type { FileReferences } from './kind.ts';
import { fileKinds, kindOf } from './kinds.ts';

function referencesOf({ files, terminals }: GroupFiles): FileReferences {
  return {
    terminals: new Map(terminals.map((terminal) => [terminal.id, terminal])),
    unixSockets: new Map(files.flatMap((file) => (file.type === 'unix' ? [[file.inode, file]] : []))),
  };
}

/** Files in the order in which CRIU has to read them, with those that are only named by others. */
function inOrder(files: readonly OpenFile[], references: FileReferences): Iterable<OpenFile> {
  const begun = new Set<OpenFile>();
  const ordered: OpenFile[] = [];
  const visit = (file: OpenFile): void => {
    if (begun.has(file)) return;
    begun.add(file);
    for (const earlier of kindOf(file).before?.(file, references) ?? []) visit(earlier);
    ordered.push(file);
  };
  for (const file of files) visit(file);
  return ordered;
}

function writeTable(images: ImageDirectory, table: FdTable, byId: ReadonlyMap<number, OpenFile>): void {
  const image = images.image('fdinfo', table.filesId);
  for (const { fd, fileId, closeOnExec } of table.descriptors) {
    const file = byId.get(fileId);
    if (file === undefined) throw new Error(`file ${fileId} of fd ${fd} is not in the model`);
    const { fileType } = kindOf(file);
    image.entry(FdinfoEntrySchema, { id: fileId, flags: closeOnExec ? 1 : 0, type: fileType, fd });
  }
}

/**
 * Writes the images of all open files of a group: `files`, `fdinfo-*`, and what the kinds of files have
 * besides. Throws an ImageWriteError, or an Error if the model names a file that it does not have.
 */
export function writeFileImages(files: GroupFiles, images: ImageDirectory, source: PageSource): void {
  const references = referencesOf(files);
  const opened = files.files.map((file) => kindOf(file).as?.(file) ?? file);
  const byId = new Map(opened.map((file) => [file.id, file]));
  const image = images.image('files');
  for (const file of inOrder(opened, references)) {
    const kind = kindOf(file);
    image.entry(FileEntrySchema, { type: kind.fileType, id: file.id, ...kind.entry(file, references) });
    kind.also?.(file, images, source);
  }
  for (const table of files.tables) writeTable(images, table, byId);
  for (const kind of Object.values(fileKinds)) kind.shared?.(files, images, source);
}
