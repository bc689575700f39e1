import { fileAt, openFlags } from '../../linux/file.ts';
import type { File } from '../../linux/fs.ts';
import { pathStruct } from '../../linux/path.ts';
import { fileKind } from '../../linux/readers/file-kind.ts';
import type { PathFile } from '../../model/open-file.ts';
import { fileType, typeOf } from '../../system/file-mode.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { MappedFile, MappingUse } from '../file-capture.ts';
import { type CaptureContext, noOwner } from './context.ts';
import { mapIoUring } from './io-uring.ts';
import { memoryKinds } from './kinds.ts';
import { memoryFileKind } from './memory/memory-file.ts';
import { isMemoryFileSystem, type NamedFile, namedFile } from './named.ts';
import { captureOpenFile } from './open-file.ts';
import { noteContent, pathFile } from './path/path.ts';
import { FileRefusal } from './refusal.ts';

/**
 * Files with a path that only mappings, executables and directories use, by mount namespace, inode,
 * access mode and path.
 */
class Placeholders {
  readonly byKey = new Map<string, PathFile>();
}

/**
 * A file for CRIU to open by path that no descriptor stands for; one for each inode, path and access mode.
 */
function placeholder(context: CaptureContext, named: NamedFile, flags: number): PathFile {
  const key = `${named.namespace} ${named.inode.address} ${flags} ${named.path}`;
  const { byKey } = context.of(Placeholders);
  let file = byKey.get(key);
  if (file === undefined) {
    file = pathFile(context, named, { id: context.nextId(), flags, owner: noOwner, position: undefined });
    byKey.set(key, file);
  }
  return file;
}

function openedFile(context: CaptureContext, address: bigint): File {
  const file = fileAt(context.kernel, address);
  if (file === undefined) throw FileRefusal.damaged('maps what is no open file');
  return file;
}

/** A mapping of a file with a path. */
function mapPath(context: CaptureContext, file: File, use: MappingUse): MappedFile {
  const named = namedFile(context, file.f_mnt, file.f_dentry, context.namespaceOf(use.pid));
  if (typeOf(named.inode.i_mode) !== fileType.regular) {
    throw new FileRefusal(`has a mapping of ${named.path}, which is not a regular file`);
  }
  if (use.shared && (file.f_flags & openFlags.accessMode) === 0 && use.openFlags !== 0) {
    throw new FileRefusal(`has a writable mapping of ${named.path}, which it opened for reading only`);
  }
  // A file in memory that several write to through mappings is how they talk to each other; one on a disk is
  // there for all of them.
  if (use.shared && use.openFlags !== 0 && isMemoryFileSystem(named.fileSystem.name)) {
    context.join(context.mappers.sharing(named.inode.i_mapping, 'writable', use.pid), 'shared memory');
  }
  const mapped = placeholder(context, named, use.openFlags);
  context.use(use.pid, mapped);
  noteContent(context, named, [use.pid]);
  return { kind: use.shared ? 'file-shared' : 'file-private', fileId: mapped.id };
}

/** The file behind a mapping; see `FileCapture.mappedFile`. */
export function captureMapped(context: CaptureContext, address: bigint, use: MappingUse): MappedFile {
  try {
    const file = openedFile(context, address);
    if (fileKind(context.kernel, file.f_op) === 'io_uring')
      return mapIoUring(context, file, use, (own) => captureOpenFile(context, own).id);
    const memory = memoryFileKind(context, file);
    return memory === undefined ? mapPath(context, file, use) : memoryKinds[memory].map(context, file, use);
  } catch (error) {
    if (!(error instanceof FileRefusal || error instanceof VmcoreError)) throw error;
    const { reason, moment, isDamage } =
      error instanceof FileRefusal ? error : FileRefusal.unreadable('has a mapping of a file that ', error);
    return { kind: 'refused', reason, moment, isDamage };
  }
}

/** The entry of an executable. Throws a FileRefusal or a VmcoreError. */
export function captureExecutable(context: CaptureContext, address: bigint, pid: number): number {
  const file = openedFile(context, address);
  if (memoryFileKind(context, file) !== undefined)
    throw new FileRefusal('runs a program that is in memory only');
  const mapped = placeholder(
    context,
    namedFile(context, file.f_mnt, file.f_dentry, context.namespaceOf(pid)),
    0,
  );
  context.use(pid, mapped);
  return mapped.id;
}

/** The entry of a directory, by the address of a `struct path`. Throws a FileRefusal or a VmcoreError. */
export function captureDirectory(context: CaptureContext, address: bigint, pid: number): number {
  const { mnt, dentry } = context.kernel.bind(pathStruct).at(address);
  const named = namedFile(context, mnt, dentry, context.namespaceOf(pid));
  if (typeOf(named.inode.i_mode) !== fileType.directory) {
    throw new FileRefusal(`is in ${named.path}, which is not a directory`);
  }
  const file = placeholder(context, named, 0);
  context.use(pid, file);
  return file.id;
}
