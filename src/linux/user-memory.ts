import type { Kernel } from '../vmcore/kernel.ts';
import { translatePage } from '../vmcore/page-table.ts';

const PAGE = 4096;

/**
 * Reads user memory of an address space. Returns undefined if any of the bytes is not in memory (never touched, swapped
 * out, or not mapped). `pgd` is `mm_struct.pgd`.
 */
export function readUser(kernel: Kernel, pgd: bigint, address: number, length: number): Buffer | undefined {
  const table = kernel.memory.userTable(pgd);
  const result = Buffer.alloc(length);
  for (let done = 0; done < length; ) {
    const at = address + done;
    const inPage = at % PAGE;
    const part = Math.min(length - done, PAGE - inPage);
    const frame = translatePage(kernel.physical, table, Math.floor(at / PAGE));
    if (frame === undefined || !kernel.physical.has(frame + inPage, part)) return undefined;
    const to = done;
    kernel.physical.withView(frame + inPage, part, (bytes) => result.set(bytes, to));
    done += part;
  }
  return result;
}
