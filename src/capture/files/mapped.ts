import { fileAt, openFlags } from '../../linux/file.ts';
import { type File, inodeStruct } from '../../linux/fs.ts';
import { pathStruct } from '../../linux/path.ts';
import type { MemfdFile } from '../../model/file.ts';
import type { FileOwner, PathFile } from '../../model/open-file.ts';
import { fileType, typeOf } from '../../system/file-mode.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { MappedFile, MappingUse } from '../file-capture.ts';
import type { CaptureContext } from './context.ts';
import { captureMemfdInode, captureSharedMemory, memoryFileKind } from './memory-file.ts';
import { isMemoryFileSystem, type NamedFile, namedFile } from './named.ts';
import { pathFile } from './path.ts';
import { FileRefusal } from './refusal.ts';

const noOwner: FileOwner = { uid: 0, euid: 0, signal: 0, pidType: 0, pid: 0 };

/** A file for CRIU to open by path that no descriptor stands for; one for each inode, path and access mode. */
function placeholder(context: CaptureContext, named: NamedFile, flags: number): PathFile {
  const key = `${named.inode.address} ${flags} ${named.path}`;
  let file = context.placeholders.get(key);
  if (file === undefined) {
    file = pathFile(context, named, { id: context.nextId(), flags, owner: noOwner, position: undefined });
    context.placeholders.set(key, file);
  }
  return file;
}

function openedFile(context: CaptureContext, address: bigint): File {
  const file = fileAt(context.kernel, address);
  if (file === undefined) throw new FileRefusal('maps what is no open file');
  return file;
}

function mapMemory(
  context: CaptureContext,
  file: File,
  use: MappingUse,
  kind: 'memfd' | 'anonymous',
): MappedFile {
  const { pid } = use;
  const inode = context.kernel.bind(inodeStruct).at(file.f_inode);
  const sharing = context.mappers.sharing(inode.i_mapping, 'shared', use.shared ? pid : undefined);
  context.join(sharing, 'shared memory');
  const { shmid } = captureSharedMemory(context, inode, kind);
  context.useMemory(pid, shmid);
  if (kind === 'anonymous') return { kind, shmid };
  const memfd = captureMemfdInode(context, file);
  const key = `${inode.address} ${use.openFlags}`;
  let mapped = context.mappedMemfds.get(key);
  if (mapped === undefined) {
    mapped = {
      type: 'memfd',
      id: context.nextId(),
      flags: use.openFlags | openFlags.largefile,
      owner: noOwner,
      position: 0n,
      inodeId: memfd.inodeId,
    } satisfies MemfdFile;
    context.mappedMemfds.set(key, mapped);
  }
  context.use(pid, mapped);
  return { kind, fileId: mapped.id, shmid, path: `/memfd:${memfd.name}` };
}

function mapOrRefuse(context: CaptureContext, address: bigint, use: MappingUse): MappedFile {
  const file = openedFile(context, address);
  const kind = memoryFileKind(context, file);
  if (kind === 'sysv') throw new FileRefusal('has a System V shared memory segment');
  if (kind === 'other') throw new FileRefusal('has a mapping of huge pages or of memory of the kernel');
  if (kind !== undefined) return mapMemory(context, file, use, kind);
  const named = namedFile(context.kernel, file.f_mnt, file.f_dentry);
  if (typeOf(named.inode.i_mode) !== fileType.regular) {
    throw new FileRefusal(`has a mapping of ${named.path}, which is not a regular file`);
  }
  if (use.shared && (file.f_flags & openFlags.accessMode) === 0 && use.openFlags !== 0) {
    throw new FileRefusal(`has a writable mapping of ${named.path}, which it opened for reading only`);
  }
  // A file in memory that several write to through mappings is how they talk to each other; one on a disk is there for all of them.
  if (use.shared && use.openFlags !== 0 && isMemoryFileSystem(named.fileSystem.name)) {
    context.join(context.mappers.sharing(named.inode.i_mapping, 'writable', use.pid), 'shared memory');
  }
  const mapped = placeholder(context, named, use.openFlags);
  context.use(use.pid, mapped);
  return { kind: 'regular', fileId: mapped.id, path: mapped.path };
}

/** The file behind a mapping; see `FileCapture.mappedFile`. */
export function captureMapped(context: CaptureContext, address: bigint, use: MappingUse): MappedFile {
  try {
    return mapOrRefuse(context, address, use);
  } catch (error) {
    if (error instanceof FileRefusal) return { kind: 'refused', reason: error.reason };
    if (error instanceof VmcoreError) {
      return { kind: 'refused', reason: `has a mapping of a file that cannot be read: ${error.message}` };
    }
    throw error;
  }
}

/** The entry of an executable. Throws a FileRefusal or a VmcoreError. */
export function captureExecutable(context: CaptureContext, address: bigint, pid: number): number {
  const file = openedFile(context, address);
  if (memoryFileKind(context, file) !== undefined)
    throw new FileRefusal('runs a program that is in memory only');
  const mapped = placeholder(context, namedFile(context.kernel, file.f_mnt, file.f_dentry), 0);
  context.use(pid, mapped);
  return mapped.id;
}

/** The entry of a directory, by the address of a `struct path`. Throws a FileRefusal or a VmcoreError. */
export function captureDirectory(context: CaptureContext, address: bigint, pid: number): number {
  const { mnt, dentry } = context.kernel.bind(pathStruct).at(address);
  const named = namedFile(context.kernel, mnt, dentry);
  if (typeOf(named.inode.i_mode) !== fileType.directory) {
    throw new FileRefusal(`is in ${named.path}, which is not a directory`);
  }
  const file = placeholder(context, named, 0);
  context.use(pid, file);
  return file.id;
}
