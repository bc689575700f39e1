/**
 * Bits of `vm_area_struct.vm_flags` (include/linux/mm.h), the same in 6.1 and 6.12. Kept as two words: the bits
 * from 32 on are architecture's and newer ones, and a bigint per area and test would be slow.
 */
export const VM = {
  read: 0x1,
  write: 0x2,
  exec: 0x4,
  shared: 0x8,
  mayWrite: 0x20,
  mayShare: 0x80,
  growsDown: 0x100,
  uffdMissing: 0x200,
  pfnMap: 0x400,
  uffdWp: 0x1000,
  locked: 0x2000,
  io: 0x4000,
  seqRead: 0x8000,
  randRead: 0x1_0000,
  dontCopy: 0x2_0000,
  dontExpand: 0x4_0000,
  lockOnFault: 0x8_0000,
  noReserve: 0x20_0000,
  hugetlb: 0x40_0000,
  sync: 0x80_0000,
  wipeOnFork: 0x200_0000,
  dontDump: 0x400_0000,
  mixedMap: 0x1000_0000,
  hugePage: 0x2000_0000,
  noHugePage: 0x4000_0000,
  mergeable: 0x8000_0000,
} as const;

/**
 * Bits 32 and up, counted from 32: four bits of protection key, the shadow stack (6.6; before that userfaultfd's third flag had its
 * place), and that flag. MAP_DROPPABLE (6.11) is not among them:
 * such an area is also one of MADV_WIPEONFORK, MADV_DONTDUMP and MAP_NORESERVE, and what the kernel may drop it need not.
 */
export const VM_HIGH = {
  pkey: 0xf,
  shadowStack: 0x20,
  uffdMinorBefore66: 0x20,
  uffdMinor: 0x40,
  sealed: 0x8000_0000,
} as const;

/** madvise(2) numbers of the advice that stays with an area (include/uapi/asm-generic/mman-common.h). */
const stickyAdvice: readonly (readonly [flag: number, advice: number])[] = [
  [VM.randRead, 1],
  [VM.seqRead, 2],
  [VM.dontCopy, 10],
  [VM.mergeable, 12],
  [VM.hugePage, 14],
  [VM.noHugePage, 15],
  [VM.dontDump, 16],
  [VM.wipeOnFork, 18],
];

/** Which madvise(2) calls an area's flags speak of. */
export function adviceOf(flags: number): number[] {
  return stickyAdvice.filter(([flag]) => (flags & flag) !== 0).map(([, advice]) => advice);
}
