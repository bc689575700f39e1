import type { AddressSpace } from '../model/memory.ts';
import type { ImageDirectory } from './image.ts';
import { MmEntrySchema } from './proto/gen/mm_pb.ts';
import { vmaEntry } from './vma.ts';

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
    mmSavedAuxv: [...memory.savedAuxv],
    vmas: memory.vmas.map(vmaEntry),
    dumpable: memory.dumpable,
    thpDisabled: memory.thpDisabled,
  });
}
