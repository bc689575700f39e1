import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Range } from '../../system/range.ts';
import { messageOf } from '../../system/thrown.ts';

const REGIONS = '/sys/bus/nd/devices';
const DAX = '/sys/bus/dax';
const BLOCKS = '/sys/devices/system/memory';
/** Alignment of a device-dax: a huge page, which any memory block is a multiple of. */
const ALIGN_BYTES = 2 ** 21;
/**
 * Where a device-dax's label is written, from the start of its range (nd_pfn_init in
 * drivers/nvdimm/pfn_devs.c).
 */
const LABEL = { start: 4096, end: 8192 };

/** What became of the old memory. */
export interface Reclaimed {
  readonly bytes: number;
  /** Memory that is as it was, because it is needed. */
  readonly withheldBytes: number;
  /** A sentence for each range that could not be taken back. */
  readonly failures: readonly string[];
}

/** Old memory could not be taken back; what had been taken before stays. */
export class ReclaimError extends Error {
  override readonly name = 'ReclaimError';
}

/**
 * Takes the dead world's memory back: each range that the command line declared as persistent memory
 * (`memmap=SIZE!START`) becomes a device-dax, then hot-added memory, then is put online, but for the blocks
 * that are needed. After this nothing else of the dead kernel can be read any more. The steps are those of
 * ndctl and daxctl, made directly in sysfs (drivers/nvdimm/dax_devs.c, drivers/dax/kmem.c). Ranges are
 * converted one after the other, in rising order, because the descriptors of each need memory that the one
 * before has brought. Real persistent memory of the machine is not touched.
 * @param ranges what `arm` declared, in rising order
 * @param needed what must stay as it is
 * @throws ReclaimError if nothing can be taken back
 */
export function reclaimMemory(ranges: readonly Range[], needed: readonly Range[]): Reclaimed {
  for (const module of ['nd_e820', 'dax_pmem', 'device_dax', 'kmem']) modprobe(module);
  waitForRegions();
  const failures: string[] = [];
  const succeeds = (what: Range, step: () => void): boolean => {
    try {
      step();
      return true;
    } catch (error) {
      if (!(error instanceof ReclaimError)) throw error;
      failures.push(`${describeRange(what)} was not taken back: ${error.message}`);
      return false;
    }
  };
  let bytes = 0;
  let withheldBytes = 0;
  for (const range of ranges) {
    const label = { start: range.start + LABEL.start, end: range.start + LABEL.end };
    if (overlaps(label, needed)) withheldBytes += range.end - range.start;
    else if (succeeds(range, () => hotAdd(range))) {
      for (const block of blocksIn(range)) {
        const blockBytes = block.end - block.start;
        if (overlaps(block, needed)) withheldBytes += blockBytes;
        else if (succeeds(block, () => putOnline(block))) bytes += blockBytes;
      }
    }
  }
  return { bytes, withheldBytes, failures };
}

/** Whether a range has something in common with one of the others. */
function overlaps({ start, end }: Range, others: readonly Range[]): boolean {
  return others.some((other) => start < other.end && other.start < end);
}

/** Makes a range memory of this kernel, all of it offline: nothing in it changes but the device's label. */
function hotAdd(range: Range): void {
  const region = readdirSync(REGIONS).find((name) => name.startsWith('region') && isRegionOf(name, range));
  if (region === undefined) throw new ReclaimError(`${REGIONS} has no region of this address and size`);
  handToKmem(makeDevice(region));
}

function isRegionOf(region: string, { start, end }: Range): boolean {
  const [resource, size] = ['resource', 'size'].map((file) => address(join(REGIONS, region, file)));
  return resource === start && size === end - start;
}

function describeRange({ start, end }: Range): string {
  return `old memory at 0x${start.toString(16)} (${(end - start) / 2 ** 20} MiB)`;
}

/**
 * The kernel registers regions and their namespaces asynchronously; reading `wait_probe` waits for all
 * (drivers/nvdimm/core.c).
 */
function waitForRegions(): void {
  for (const bus of readdirSync(REGIONS).filter((name) => name.startsWith('ndbus'))) {
    readFileSync(join(REGIONS, bus, 'wait_probe'));
  }
}

function modprobe(module: string): void {
  try {
    execFileSync('modprobe', [module], { stdio: ['ignore', 'ignore', 'pipe'] });
  } catch (error) {
    throw new ReclaimError(`modprobe ${module} failed`, { cause: error });
  }
}

/** A file of sysfs that holds one number, `0x` or decimal. */
function address(path: string): number {
  return Number(readFileSync(path, 'utf8'));
}

function write(path: string, value: string): void {
  try {
    writeFileSync(path, value);
  } catch (error) {
    const why = messageOf(error);
    throw new ReclaimError(`writing ${value} to ${path} failed: ${why}`, { cause: error });
  }
}

/** Turns a region's one namespace into a device-dax. @returns the name of the dax device */
function makeDevice(region: string): string {
  const seed = readFileSync(join(REGIONS, region, 'dax_seed'), 'utf8').trim();
  const device = join(REGIONS, seed);
  const namespace = `namespace${region.slice('region'.length)}.0`;
  const driver = join(REGIONS, namespace, 'driver');
  if (existsSync(driver)) write(join(driver, 'unbind'), namespace);
  write(join(device, 'align'), String(ALIGN_BYTES));
  write(join(device, 'uuid'), randomUUID());
  write(join(device, 'mode'), 'ram');
  write(join(device, 'namespace'), namespace);
  write('/sys/bus/nd/drivers/dax_pmem/bind', seed);
  const name = readdirSync(device).find((entry) => /^dax\d+\.\d+$/.test(entry));
  if (name === undefined) throw new ReclaimError(`${device} has no dax device`);
  return name;
}

function handToKmem(dax: string): void {
  const driver = join(DAX, 'devices', dax, 'driver');
  if (existsSync(driver)) write(join(driver, 'unbind'), dax);
  write(join(DAX, 'drivers/kmem/new_id'), dax);
  if (!existsSync(driver)) write(join(DAX, 'drivers/kmem/bind'), dax);
}

/** A block of memory that can be put online. */
interface Block extends Range {
  readonly directory: string;
}

/** The blocks that are in a range as a whole, in rising order. */
function blocksIn({ start, end }: Range): Block[] {
  const bytes = Number.parseInt(readFileSync(join(BLOCKS, 'block_size_bytes'), 'utf8'), 16);
  return readdirSync(BLOCKS)
    .flatMap((name) => {
      const number = /^memory(\d+)$/.exec(name)?.[1];
      if (number === undefined) return [];
      const first = Number(number) * bytes;
      return [{ start: first, end: first + bytes, directory: join(BLOCKS, name) }];
    })
    .filter((block) => block.start >= start && block.end <= end)
    .sort((one, other) => one.start - other.start);
}

/**
 * Puts a block online for the kernel's own use as well as for processes: a movable-only zone several times as
 * large as the rest would leave the kernel without memory for itself.
 */
function putOnline({ directory }: Block): void {
  write(join(directory, 'state'), 'online_kernel');
}
