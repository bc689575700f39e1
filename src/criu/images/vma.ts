import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Vma } from '../../model/memory.ts';
import type { VmaEntrySchema } from './proto/gen/mm_pb.ts';
import { vmaKinds } from './vma-kinds.ts';

/** VMA_AREA_REGULAR (criu/include/image.h): CRIU maps it. */
const REGULAR = 1 << 0;

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
  return vmaKinds[kind].isPrivate === true;
}

function flagsOf(vma: Vma): number {
  const shared = vmaKinds[vma.kind].isShared === true;
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
  const kind = vmaKinds[vma.kind];
  const advice = vma.advice.reduce((bits, advice) => bits | (1n << BigInt(advice)), 0n);
  return {
    start: BigInt(vma.start),
    end: BigInt(vma.end),
    pgoff: BigInt(vma.offsetBytes),
    shmid: BigInt(vma.fileId ?? vma.shmid ?? 0),
    prot: vma.prot,
    flags: flagsOf(vma),
    status: REGULAR | kind.status(vma),
    fd: -1n,
    madv: advice === 0n ? undefined : advice,
    fdflags: vma.fileId === undefined ? undefined : vma.fileOpenFlags,
    ...kind.entry?.(vma),
  };
}
