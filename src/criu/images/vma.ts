import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Vma } from '../../model/memory.ts';
import type { VmaEntrySchema } from './proto/gen/mm_pb.ts';

/** `status` of an area (criu/include/image.h). */
const STATUS = {
  regular: 1 << 0,
  vdso: 1 << 3,
  heap: 1 << 5,
  filePrivate: 1 << 6,
  fileShared: 1 << 7,
  anonShared: 1 << 8,
  anonPrivate: 1 << 9,
  vvar: 1 << 12,
  memfd: 1 << 14,
} as const;

/** mmap(2) flags. */
const MAP = {
  shared: 0x1,
  private: 0x2,
  anonymous: 0x20,
  growsDown: 0x100,
  locked: 0x2000,
  noReserve: 0x4000,
} as const;

/** Whether an area's pages are stored with the process, rather than with a file or shared memory. */
export function isPrivate({ kind }: Vma): boolean {
  return kind === 'anonymous' || kind === 'file-private' || kind === 'vdso';
}

function statusOf({ kind, heap, shmid, fileId }: Vma): number {
  switch (kind) {
    case 'anonymous':
      return STATUS.anonPrivate | (heap ? STATUS.heap : 0);
    case 'file-private':
      return STATUS.filePrivate | (shmid === undefined ? 0 : STATUS.memfd);
    case 'file-shared':
      return STATUS.fileShared;
    case 'shared-memory':
      return fileId === undefined ? STATUS.anonShared : STATUS.fileShared | STATUS.memfd;
    case 'vdso':
      return STATUS.anonPrivate | STATUS.vdso;
    case 'vvar':
      return STATUS.anonPrivate | STATUS.vvar;
  }
}

function flagsOf(vma: Vma): number {
  const shared = vma.kind === 'file-shared' || vma.kind === 'shared-memory';
  const anonymous = vma.fileId === undefined;
  return (
    (shared ? MAP.shared : MAP.private) |
    (anonymous ? MAP.anonymous : 0) |
    (vma.growsDown ? MAP.growsDown : 0) |
    (vma.locked ? MAP.locked : 0) |
    (vma.noReserve ? MAP.noReserve : 0)
  );
}

/** The area as CRIU's mm image has it. */
export function vmaEntry(vma: Vma): MessageInitShape<typeof VmaEntrySchema> {
  const advice = vma.advice.reduce((bits, advice) => bits | (1n << BigInt(advice)), 0n);
  return {
    start: BigInt(vma.start),
    end: BigInt(vma.end),
    pgoff: BigInt(vma.offsetBytes),
    shmid: BigInt(vma.fileId ?? vma.shmid ?? 0),
    prot: vma.prot,
    flags: flagsOf(vma),
    status: STATUS.regular | statusOf(vma),
    fd: -1n,
    madv: advice === 0n ? undefined : advice,
    fdflags: vma.fileId === undefined ? undefined : vma.fileOpenFlags,
  };
}
