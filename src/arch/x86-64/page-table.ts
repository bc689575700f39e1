import { PAGE_SIZE } from '../../system/page.ts';
import type { PageTableFormat } from '../architecture.ts';

const PRESENT = 1;
const HUGE = 1 << 7;
/**
 * Set in an entry that keeps its frame but must not be used (PROT_NONE, NUMA hinting); PRESENT is then clear
 * and the frame's bits are inverted (arch/x86/include/asm/pgtable-invert.h).
 */
const PROTNONE = 1 << 8;
/** Flags that pages of one run share: all but accessed (bit 5) and soft-dirty (bit 11). */
const RUN_FLAGS = 0xfff & ~(1 << 5) & ~(1 << 11);
/**
 * Bits 32..51 of an entry's frame address, in its high word; above are the protection key and the ban to
 * execute.
 */
const FRAME_HIGH = 0x000f_ffff;
const FRAME_HIGH_BITS = 20;
const WORD = 0x1_0000_0000;
/**
 * Bits that are clear in a swap entry: present, accessed, dirty, huge, PROT_NONE, and the one between. Bits 1
 * to 3 (soft-dirty, write-protected by userfaultfd, exclusive) say nothing of where the page is.
 */
const NOT_OF_SWAP = 0x1f1;
/** The slot is in bits 9 to 58, inverted (against L1TF); the number of its area is above it. */
const SLOT_SHIFT = 9;
const SLOT_HIGH = 0x07ff_ffff;
const SLOT_LOW_SPAN = 2 ** (32 - SLOT_SHIFT);

/** Paging structures of 4 and of 5 levels: SDM volume 3, 4.5; arch/x86/include/asm/pgtable_types.h. */
export const pageTable: PageTableFormat = {
  entries: 512,
  pagesPerEntry: [0, 1, 512, 512 ** 2, 512 ** 3, 512 ** 4],
  largestPageLevel: 3,
  isTable: (low, level) => level > 1 && (low & PRESENT) !== 0 && (low & HUGE) === 0,
  isValid: (low) => (low & PRESENT) !== 0,
  isPresent: (low, level) => (low & (level > 1 ? PRESENT | PROTNONE | HUGE : PRESENT | PROTNONE)) !== 0,
  frame: (low, high) => ((low & PRESENT) !== 0 ? frameOf(low, high) : frameOf(~low >>> 0, ~high >>> 0)),
  isAlike: (low, high, otherLow, otherHigh) =>
    ((low ^ otherLow) & RUN_FLAGS) === 0 && high >>> FRAME_HIGH_BITS === otherHigh >>> FRAME_HIGH_BITS,
  // The top five bits: arch/x86/include/asm/pgtable_64.h.
  swapType: (high) => high >>> 27,
  swapSlot: (low, high) =>
    (low & NOT_OF_SWAP) === 0 ? (~high & SLOT_HIGH) * SLOT_LOW_SPAN + (~low >>> SLOT_SHIFT) : undefined,
};

function frameOf(low: number, high: number): number {
  return (high & FRAME_HIGH) * WORD + ((low & ~(PAGE_SIZE - 1)) >>> 0);
}
