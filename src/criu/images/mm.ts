import type { AddressSpace } from '../../model/memory.ts';
import type { ImageDirectory } from './image.ts';
import { MmEntrySchema } from './proto/gen/mm_pb.ts';
import { vmaEntry } from './vma.ts';

/**
 * Words that CRIU takes (AT_VECTOR_SIZE of criu/arch/x86/include/asm/types.h); 6.12 has more. What falls away
 * is the AT_NULL at the end: PR_SET_MM_MAP puts one there itself.
 */
const AT_VECTOR_WORDS = 44;

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
    dumpable: memory.dumpable,
    thpDisabled: memory.thpDisabled,
  });
}
