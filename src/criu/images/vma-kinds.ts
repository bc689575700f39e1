import type { MessageInitShape } from '@bufbuild/protobuf';
import type { Vma, VmaKind } from '../../model/memory.ts';
import { MAP_SHARED } from '../../system/abi.ts';
import type { VmaEntrySchema } from './proto/gen/mm_pb.ts';
import { attachedSegment } from './segments.ts';

/** `status` of an area (criu/include/image.h). */
const STATUS = {
  vdso: 1 << 3,
  heap: 1 << 5,
  filePrivate: 1 << 6,
  fileShared: 1 << 7,
  anonShared: 1 << 8,
  anonPrivate: 1 << 9,
  vvar: 1 << 12,
  sysvIpc: 1 << 10,
  aioRing: 1 << 13,
  memfd: 1 << 14,
} as const;

/** What the images have of a kind of area. */
export interface VmaKindImages {
  /** Its pages are stored with the process, rather than with a file or shared memory. */
  readonly isPrivate?: boolean;
  /** MAP_SHARED. */
  readonly isShared?: boolean;
  /** What CRIU takes it for, besides a regular area. */
  status(vma: Vma): number;
  /** Where CRIU is told more, or something else, than of other areas. */
  entry?(
    vma: Vma,
  ): Partial<Pick<MessageInitShape<typeof VmaEntrySchema>, 'shmid' | 'prot' | 'fd' | 'status' | 'flags'>>;
}

/** All kinds of areas. One that the model has and this list has not does not compile. */
export const vmaKinds: Readonly<Record<VmaKind, VmaKindImages>> = {
  anonymous: { isPrivate: true, status: ({ heap }) => STATUS.anonPrivate | (heap ? STATUS.heap : 0) },
  'file-private': {
    isPrivate: true,
    status: ({ shmid }) => STATUS.filePrivate | (shmid === undefined ? 0 : STATUS.memfd),
  },
  'file-shared': { isShared: true, status: () => STATUS.fileShared },
  'shared-memory': {
    isShared: true,
    status: ({ fileId }) => (fileId === undefined ? STATUS.anonShared : STATUS.fileShared | STATUS.memfd),
  },
  segment: { isShared: true, status: () => STATUS.sysvIpc, entry: attachedSegment },
  // Not a regular area: CRIU has the context made, and moves its ring there (restore_aio_ring).
  'aio-ring': {
    isPrivate: true,
    isShared: true,
    status: () => STATUS.aioRing,
    entry: () => ({ status: STATUS.aioRing, flags: MAP_SHARED }),
  },
  // Not in the images: it is mapped when the ring is there (src/criu/restore/io-uring.ts).
  'io-uring': { isShared: true, status: () => 0 },
  vdso: { isPrivate: true, status: () => STATUS.anonPrivate | STATUS.vdso },
  vvar: { status: () => STATUS.anonPrivate | STATUS.vvar },
};
