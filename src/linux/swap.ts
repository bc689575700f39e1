import {
  addressOf,
  flags,
  optional,
  pointer,
  struct,
  u8,
  uint,
  ulongNumber,
  type ViewOf,
} from '../vmcore/view.ts';

/** `struct swap_info_struct` (include/linux/swap.h): a swap area. */
export const swapInfoStruct = struct('swap_info_struct', {
  flags,
  type: u8,
  /** Slots, that of the header among them. */
  max: uint,
  /** A byte for each slot: who uses it. */
  swap_map: pointer,
  /** 6.12: a bit for each slot whose page was all zeros, and was not written. */
  zeromap: optional(pointer),
  swap_extent_root: addressOf('swap_extent_root'),
  bdev: pointer,
  swap_file: pointer,
});

export type SwapInfo = ViewOf<typeof swapInfoStruct>;

/** `struct swap_extent`: slots that lie in a row on the device, in pages. */
export const swapExtentStruct = struct('swap_extent', {
  rb_node: addressOf('rb_node'),
  start_page: ulongNumber,
  nr_pages: ulongNumber,
  start_block: ulongNumber,
});

/** Bits of `swap_info_struct.flags`, the same in 6.1 and 6.12. */
export const SWP = { used: 1 << 0, writeOk: 1 << 1, blockDevice: 1 << 6, fileSystem: 1 << 8 } as const;

/** What a byte of `swap_map` says. */
export const SWAP_MAP = {
  /** The page is in the swap cache, or on its way there. */
  hasCache: 0x40,
  /** Without that bit: a slot that cannot be used, and one of shared memory, which is not counted. */
  bad: 0x3f,
  shmem: 0xbf,
} as const;

/** MAX_SWAPFILES with all that the kernel may have besides: no kernel has more areas. */
export const MAX_SWAP_AREAS = 32;
/** Pages of a swap area that share one `address_space` of the swap cache (SWAP_ADDRESS_SPACE_SHIFT). */
export const SWAP_SPACE_PAGES = 1 << 14;
/** `swp_entry_t` outside of page tables: the slot is below this bit, the area's number from it on. */
const ENTRY_TYPE_SHIFT = 58n;

/** A `swp_entry_t`, as value entries of page caches and `page.private` have it (include/linux/swapops.h). */
export function swapEntry(value: bigint): { readonly type: number; readonly slot: number } {
  return {
    type: Number(value >> ENTRY_TYPE_SHIFT),
    slot: Number(value & ((1n << ENTRY_TYPE_SHIFT) - 1n)),
  };
}
