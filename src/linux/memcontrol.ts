import { addressOf, struct, ulongNumber } from '../vmcore/view.ts';

/**
 * `struct mem_cgroup` (include/linux/memcontrol.h, page_counter.h): what the `memory` controller keeps of a
 * cgroup; in pages.
 */
export const memCgroupStruct = struct('mem_cgroup', {
  css: addressOf(),
  max: ulongNumber.at('memory.max'),
  high: ulongNumber.at('memory.high'),
  low: ulongNumber.at('memory.low'),
  min: ulongNumber.at('memory.min'),
  swapMax: ulongNumber.at('swap.max'),
});
