import { dentryName, dentryStruct } from '../../../linux/dcache.ts';
import { filePosition, openFlags } from '../../../linux/file.ts';
import { type File, inodeStruct } from '../../../linux/fs.ts';
import { MEMFD_PREFIX, shmemSeals } from '../../../linux/shmem.ts';
import type { MemfdFile, MemfdInode } from '../../../model/file.ts';
import { isWholeText, showText } from '../../../system/byte-text.ts';
import type { MappedFile, MappingUse } from '../../file-capture.ts';
import { type CaptureContext, noOwner } from '../context.ts';
import type { GroupSelection } from '../kind.ts';
import { FileRefusal } from '../refusal.ts';
import { captureSharedMemory, mapSharedMemory } from './shared-memory.ts';
import { noteSwapped } from './swap-note.ts';

/** What memfd_create made. */
class Memfds {
  /** By the number of the inode, which is that of its shared memory. */
  readonly byId = new Map<number, MemfdInode>();
  /** Files that only mappings use, by inode and access mode. */
  readonly mapped = new Map<string, MemfdFile>();
}

/** What memfd_create made, once per inode. Throws as `captureSharedMemory`. */
function captureMemfdInode(context: CaptureContext, file: File): MemfdInode {
  const { kernel } = context;
  const { byId } = context.of(Memfds);
  const inode = kernel.bind(inodeStruct).at(file.f_inode);
  const { shmid } = captureSharedMemory(context, inode, 'memfd');
  const known = byId.get(shmid);
  if (known !== undefined) return known;
  const name = dentryName(kernel, kernel.bind(dentryStruct).at(file.f_dentry)).slice(MEMFD_PREFIX.length);
  if (!isWholeText(name)) throw new FileRefusal(`has a memfd whose name is not UTF-8: ${showText(name)}`);
  const memfd: MemfdInode = {
    inodeId: shmid,
    shmid,
    name,
    uid: inode.i_uid,
    gid: inode.i_gid,
    mode: inode.i_mode,
    sizeBytes: inode.i_size,
    seals: shmemSeals(kernel, inode.address),
  };
  byId.set(shmid, memfd);
  return memfd;
}

/**
 * An open memfd, whose memory others can share without a descriptor: by mapping it. Throws as
 * `captureSharedMemory`, and a FileRefusal if somebody maps it who is not protected.
 */
export function captureMemfd(context: CaptureContext, file: File): MemfdFile {
  const { i_mapping } = context.kernel.bind(inodeStruct).at(file.f_inode);
  const holders = context.system.holdersOfFile(file.address).map(({ pid }) => pid);
  context.join([...holders, ...context.mappers.sharing(i_mapping, 'shared')], 'shared memory');
  const { inodeId } = captureMemfdInode(context, file);
  noteSwapped(context, i_mapping, 'shared memory', holders);
  return { type: 'memfd', ...context.common(file), position: filePosition(file), inodeId };
}

/** A mapping of a memfd. Throws as `captureMemfd`. */
export function mapMemfd(context: CaptureContext, file: File, use: MappingUse): MappedFile {
  const { shmid } = mapSharedMemory(context, file, use, 'memfd');
  const { inodeId } = captureMemfdInode(context, file);
  const { mapped } = context.of(Memfds);
  const key = `${file.f_inode} ${use.openFlags}`;
  let memfd = mapped.get(key);
  if (memfd === undefined) {
    const flags = use.openFlags | openFlags.largefile;
    memfd = { type: 'memfd', id: context.nextId(), flags, owner: noOwner, position: 0n, inodeId };
    mapped.set(key, memfd);
  }
  context.use(use.pid, memfd);
  return { kind: use.shared ? 'shared-memory' : 'file-private', fileId: memfd.id, shmid };
}

/** What memfd_create made of a group's files. */
export function memfdsOf({ context, files }: GroupSelection): MemfdInode[] {
  const ids = new Set(files.flatMap((file) => (file.type === 'memfd' ? [file.inodeId] : [])));
  return [...context.of(Memfds).byId.values()].filter(({ inodeId }) => ids.has(inodeId));
}
