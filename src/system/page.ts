/** Bytes of a page of memory on x86-64, the smallest that its page tables map (Intel SDM volume 3, 5.1.1). */
export const PAGE_SIZE = 4096;

/** The start of the page in which an address or offset lies. */
export function pageStart(at: number): number {
  return at - (at % PAGE_SIZE);
}

/** An address or offset, or the end of the page that it lies in: a number of bytes in whole pages. */
export function pageEnd(at: number): number {
  return Math.ceil(at / PAGE_SIZE) * PAGE_SIZE;
}
