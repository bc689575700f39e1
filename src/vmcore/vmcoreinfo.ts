import { PAGE_SIZE, pageEnd } from '../system/page.ts';
import type { PhysicalMemory } from './physical.ts';

/**
 * The lines of VMCOREINFO as a map: `SYMBOL(prb)` to `ffffffff82a5c060` and so on. Values are the kernel's
 * own text: symbols and KERNELOFFSET hexadecimal without prefix, the rest decimal (kernel/vmcore_info.c).
 */
export function parseVmcoreinfo(text: string): Map<string, string> {
  const entries = new Map<string, string>();
  for (const line of text.replace(/\0.*$/s, '').split('\n')) {
    const equals = line.indexOf('=');
    if (equals > 0) entries.set(line.slice(0, equals), line.slice(equals + 1));
  }
  return entries;
}

/** The address that VMCOREINFO gives for a symbol. */
export function vmcoreinfoSymbol(info: ReadonlyMap<string, string>, name: string): bigint | undefined {
  const text = info.get(`SYMBOL(${name})`);
  return text !== undefined && /^[0-9a-f]{1,16}$/.test(text) ? BigInt(`0x${text}`) : undefined;
}

/** A NUMBER, SIZE, OFFSET or LENGTH entry, given with its keyword: `NUMBER(phys_base)`. */
export function vmcoreinfoNumber(info: ReadonlyMap<string, string>, key: string): number | undefined {
  const text = info.get(key);
  if (text === undefined || !/^-?[0-9]{1,19}$/.test(text)) return undefined;
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : undefined;
}

const FIRST_LINE = Buffer.from('OSRELEASE=');
/** Pages looked at before the search gives up: 64 GiB. */
const MAX_PAGES = 1 << 24;

/**
 * Finds the kernel's VMCOREINFO page in a dump that has no such note (a QEMU dump of a guest that did not
 * register it): it fills a page of its own from the first byte (`vmcoreinfo_data`). Every page of the dump is
 * looked at, up to 64 GiB; yields each page that reads like one, since files in the page cache may, too.
 */
export function* searchVmcoreinfo(physical: PhysicalMemory): Generator<Map<string, string>> {
  const word = FIRST_LINE.readUInt32LE(0);
  let looked = 0;
  for (const range of physical.ranges) {
    const first = pageEnd(range.physical);
    for (let at = first; at + PAGE_SIZE <= range.physical + range.length; at += PAGE_SIZE) {
      if (++looked > MAX_PAGES) return;
      if (!physical.has(at, PAGE_SIZE)) continue;
      const { data, offset } = physical.window(at, PAGE_SIZE);
      if (data.getUint32(offset, true) !== word) continue;
      const page = Buffer.from(data.buffer, data.byteOffset + offset, PAGE_SIZE);
      if (!page.subarray(0, FIRST_LINE.length).equals(FIRST_LINE)) continue;
      const info = parseVmcoreinfo(page.toString('latin1'));
      if (info.has('SYMBOL(init_uts_ns)') && info.has('NUMBER(phys_base)')) yield info;
    }
  }
}
