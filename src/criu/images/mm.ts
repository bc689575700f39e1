import type { MessageInitShape } from '@bufbuild/protobuf';
import type { AddressSpace, Vma } from '../../model/memory.ts';
import { listedRuns } from '../../model/page-runs.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import type { ImageDirectory } from './image.ts';
import { type AioRingEntrySchema, MmEntrySchema } from './proto/gen/mm_pb.ts';
import { vmaEntry } from './vma.ts';

/**
 * Words that CRIU takes (AT_VECTOR_SIZE of criu/arch/x86/include/asm/types.h); 6.12 has more. What falls away
 * is the AT_NULL at the end: PR_SET_MM_MAP puts one there itself.
 */
const AT_VECTOR_WORDS = 44;

/** Bytes of the head of a ring, and of each event in it (fs/aio.c). */
const AIO_BYTES = 32;

/**
 * A context by its ring. CRIU asks io_setup(2) for so many requests that the kernel gives it a ring of the
 * same size: twice as many, and two more, fill these pages.
 */
export function aioRingEntry(start: number, end: number): MessageInitShape<typeof AioRingEntrySchema> {
  const ringLen = end - start;
  const events = (ringLen - AIO_BYTES) / AIO_BYTES;
  return { id: BigInt(start), nrReq: Math.floor((events - 2) / 2), ringLen };
}

/** The contexts of a process, by its areas. */
export function aioRingEntries(vmas: readonly Vma[]): ReturnType<typeof aioRingEntry>[] {
  const rings = vmas.filter(({ kind }) => kind === 'aio-ring');
  return rings.map(({ start, end }) => aioRingEntry(start, end));
}

/**
 * Where the kernel places memory only for those who may ask for it (vm.mmap_min_addr), but not whether it may
 * before it chooses a place.
 */
export const LOWEST = { start: PAGE_SIZE, end: 0x1_0000 } as const;

/**
 * Areas without those of an io_uring, which the kernel maps where it likes: what is free elsewhere is taken
 * meanwhile. Not even CRIU can do that later for the lowest pages, so that they are taken from the beginning.
 */
function mappedByCriu(vmas: readonly Vma[]): Vma[] {
  const others = vmas.filter(({ kind }) => kind !== 'io-uring');
  if (others.length === vmas.length || (others[0]?.start ?? 0) < LOWEST.end) return others;
  const nothing = { growsDown: false, heap: false, stack: false, hugetlb: false, locked: false };
  return [
    {
      ...{ ...LOWEST, ...nothing, kind: 'anonymous', prot: 0, noReserve: true, advice: [], offsetBytes: 0 },
      runs: listedRuns([]),
    },
    ...others,
  ];
}

/** Writes `mm-PID.img`. */
export function writeMm(images: ImageDirectory, pid: number, memory: AddressSpace): void {
  images.image('mm', pid).entry(MmEntrySchema, {
    mmStartCode: BigInt(memory.startCode),
    mmEndCode: BigInt(memory.endCode),
    mmStartData: BigInt(memory.startData),
    mmEndData: BigInt(memory.endData),
    mmStartStack: BigInt(memory.startStack),
    mmStartBrk: BigInt(memory.startBrk),
    mmBrk: BigInt(memory.brk),
    mmArgStart: BigInt(memory.argStart),
    mmArgEnd: BigInt(memory.argEnd),
    mmEnvStart: BigInt(memory.envStart),
    mmEnvEnd: BigInt(memory.envEnd),
    exeFileId: memory.exeFileId,
    mmSavedAuxv: memory.savedAuxv.slice(0, AT_VECTOR_WORDS),
    vmas: mappedByCriu(memory.vmas).map(vmaEntry),
    aios: aioRingEntries(memory.vmas),
    dumpable: memory.dumpable,
    thpDisabled: memory.thpDisabled,
  });
}
