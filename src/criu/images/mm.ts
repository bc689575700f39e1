import type { MessageInitShape } from '@bufbuild/protobuf';
import type { AddressSpace } from '../../model/memory.ts';
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
    vmas: memory.vmas.map(vmaEntry),
    aios: memory.vmas
      .filter(({ kind }) => kind === 'aio-ring')
      .map(({ start, end }) => aioRingEntry(start, end)),
    dumpable: memory.dumpable,
    thpDisabled: memory.thpDisabled,
  });
}
