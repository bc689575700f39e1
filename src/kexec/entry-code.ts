import { PAGE_SIZE } from '../system/page.ts';
import type { PlacedImage, SegmentRequest } from './image-plan.ts';

/** Selectors of the boot protocol: __BOOT_CS and __BOOT_DS (boot.rst, "64-bit Boot Protocol"). */
const [BOOT_CS, BOOT_DS] = [0x10, 0x18];
/**
 * Flat segments of 64-bit code and of data (Intel SDM volume 3, 3.4.5), marked as accessed, so that the
 * processor need not write that.
 */
const DESCRIPTORS = [0n, 0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn];
const GDT_AT = 0x80;
const GDT_POINTER_AT = 0xc0;

/**
 * A segment of machine code to be named as the entry of an image, if nothing else is to run before the
 * kernel: the running kernel jumps with all general registers zero, and the boot protocol wants a GDT, its
 * selectors, and the address of boot_params in RSI. One page, with a stack at its end.
 * @param name of the segment
 */
export function entryRequest(name = 'entry'): SegmentRequest {
  return { name, memoryBytes: PAGE_SIZE, kept: false, content: entryCode };
}

function entryCode({ own, entry, bootParams }: PlacedImage): Buffer {
  const page = Buffer.alloc(PAGE_SIZE);
  let at = 0;
  const put = (...bytes: number[]): void => {
    page.set(bytes, at);
    at += bytes.length;
  };
  /** An operand of 4 bytes at the end of an instruction, relative to the next one. */
  const putRelative = (target: number): void => {
    at = page.writeInt32LE(target - (at + 4), at);
  };
  const putAddress = (address: number): void => {
    at = page.writeBigUInt64LE(BigInt(address), at);
  };
  put(0xfa, 0xfc); // cli; cld
  put(0x0f, 0x01, 0x15); // lgdt [rip + …]
  putRelative(GDT_POINTER_AT);
  put(0xb8, BOOT_DS, 0, 0, 0); // mov eax, BOOT_DS
  put(0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0); // mov ds, eax; mov es, eax; mov ss, eax
  put(0x48, 0x8d, 0x25); // lea rsp, [rip + …]
  putRelative(PAGE_SIZE);
  put(0x48, 0xbe); // mov rsi, boot_params
  putAddress(bootParams);
  put(0x48, 0xb8); // mov rax, entry
  putAddress(entry);
  put(0x6a, BOOT_CS, 0x50, 0x48, 0xcb); // push BOOT_CS; push rax; retfq
  at = GDT_AT;
  for (const descriptor of DESCRIPTORS) at = page.writeBigUInt64LE(descriptor, at);
  page.writeUInt16LE(DESCRIPTORS.length * 8 - 1, GDT_POINTER_AT);
  page.writeBigUInt64LE(BigInt(own.start + GDT_AT), GDT_POINTER_AT + 2);
  return page;
}
