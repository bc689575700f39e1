import type { Range } from '../system/range.ts';
import { type BootParamsContent, bootParamsBytes, encodeBootParams } from './boot-params.ts';
import type { BzImage } from './bzimage.ts';
import type { EfiState } from './efi.ts';
import { KexecError } from './error.ts';
import type { MemoryMapEntry } from './memory-map.ts';
import { FreeMemory, type PlaceRequest } from './placement.ts';
import { type Segment, segmentRange } from './segments.ts';

/** A segment besides those of the kernel. */
export interface SegmentRequest extends PlaceRequest {
  /** The loaded kernel must not use its memory: it is not RAM in its memory map. */
  readonly kept: boolean;
  /** Its bytes, at most `memoryBytes`; a function if they depend on where things are, or on their content. */
  readonly content: Buffer | ((placed: PlacedImage) => Buffer);
}

/** What is known when the content of a segment is asked for. */
export interface PlacedImage {
  /** Of the kernel's 64-bit entry. */
  readonly entry: number;
  /** Of struct boot_params. */
  readonly bootParams: number;
  readonly memoryMap: readonly MemoryMapEntry[];
  /** Where the segment itself is. */
  readonly own: Range;
  /** Where every segment is, by name: `kernel`, `initrd`, `boot-params`, and those that were asked for. */
  readonly ranges: ReadonlyMap<string, Range>;
  /** With their content: kernel, initrd and boot_params, and those that were asked for before this one. */
  readonly segments: readonly Segment[];
}

/** What a kernel is loaded with. */
export interface ImageContent {
  readonly image: BzImage;
  /** undefined or empty: none. */
  readonly initrd: Buffer | undefined;
  /** The command line; it may name where a segment that was asked for is. */
  readonly commandLine: (ranges: ReadonlyMap<string, Range>) => string;
  /** What segments may lie in. */
  readonly within: readonly Range[];
  /** What to do if that is too little: the end of a message. */
  readonly advice: string;
  readonly requests: readonly SegmentRequest[];
  /** The memory map of the loaded kernel, without what is kept from it. */
  readonly memoryMap: (kept: readonly Range[]) => MemoryMapEntry[];
  /** boot_params of the running kernel: /sys/kernel/boot_params/data. */
  readonly running: Buffer;
  readonly efi?: EfiState | undefined;
  /** Random bytes for the loaded kernel's generator: 32. */
  readonly rngSeed?: Buffer | undefined;
  /** The running kernel's page tables have five levels (VMCOREINFO: pgtable_l5_enabled). */
  readonly fiveLevels?: boolean;
}

/** All of an image: where everything is, and what is there. */
export interface ImagePlan {
  /** Physical address of the kernel's 64-bit entry. It expects `bootParams` in RSI (boot.rst). */
  readonly entry: number;
  /** Physical address of struct boot_params. */
  readonly bootParams: number;
  readonly commandLine: string;
  readonly memoryMap: readonly MemoryMapEntry[];
  /** `kernel`, `initrd` (if there is one), `boot-params`, then those that were asked for, in their order. */
  readonly segments: readonly Segment[];
}

const FOUR_GIB = 2 ** 32;
const [KERNEL, INITRD, BOOT_PARAMS] = ['kernel', 'initrd', 'boot-params'];

/** A segment with its place. */
interface PlacedRequest extends SegmentRequest {
  readonly range: Range;
}

/** Where the kernel's own segments are. */
interface KernelPlace {
  readonly kernel: Range;
  readonly initrd: Range | undefined;
  readonly bootParams: Range;
}

/**
 * Places a kernel and what comes with it. Nothing is read and nothing is loaded.
 * @throws KexecError if the image cannot be entered from the running kernel, something does not fit, or the
 *   command line is too long
 */
export function planImage(content: ImageContent): ImagePlan {
  requireDistinct(content.requests);
  requireEnterable(content);
  const { image, running, efi, rngSeed } = content;
  const initrd = content.initrd?.length === 0 ? undefined : content.initrd;
  const free = new FreeMemory(content.within, content.advice);
  const requests = content.requests.map((request) => ({ ...request, range: free.take(request) }));
  const requested = new Map(requests.map(({ name, range }) => [name, range]));
  const memoryMap = content.memoryMap(requests.filter(({ kept }) => kept).map(({ range }) => range));
  const commandLine = content.commandLine(requested);
  const params: BootParamsContent = { image, commandLine, memoryMap, running, efi, rngSeed };
  const place = placeKernel(free, params, initrd);
  const segments = kernelSegments(place, params, initrd);
  const ranges = new Map([...segments.map(namedRange), ...requested]);
  const known = { entry: place.kernel.start + image.entry64, bootParams: place.bootParams.start, memoryMap };
  for (const request of requests)
    segments.push(
      requestedSegment(request, { ...known, own: request.range, ranges, segments: [...segments] }),
    );
  return { ...known, commandLine, segments };
}

/** Each needs a name of its own: they are looked up by it. */
function requireDistinct(requests: readonly SegmentRequest[]): void {
  const seen = new Set([KERNEL, INITRD, BOOT_PARAMS]);
  for (const { name } of requests) {
    if (seen.has(name)) throw new KexecError(`two segments are called ${name}; give one another name`);
    seen.add(name);
  }
}

function requireEnterable({ image, fiveLevels }: ImageContent): void {
  if (fiveLevels === true && !image.fiveLevels)
    throw new KexecError(
      'the kernel image cannot be entered with page tables of five levels (XLF_5LEVEL is not set), which the ' +
        'running kernel has; boot with no5lvl, or load a kernel with CONFIG_X86_5LEVEL',
    );
}

/** In this order: the zero page needs little, the kernel needs most in one piece. */
function placeKernel(free: FreeMemory, params: BootParamsContent, initrd: Buffer | undefined): KernelPlace {
  const { image } = params;
  const limit = image.above4GiB ? undefined : FOUR_GIB;
  const initrdLimit = image.above4GiB ? undefined : image.initrdEnd;
  const bootParams = free.take({ name: BOOT_PARAMS, memoryBytes: bootParamsBytes(params), limit });
  return {
    bootParams,
    initrd: initrd && free.take({ name: INITRD, memoryBytes: initrd.length, limit: initrdLimit }),
    kernel: free.take({
      name: KERNEL,
      memoryBytes: image.initBytes,
      alignment: image.alignment,
      minimum: image.preferredAddress,
      limit,
    }),
  };
}

function kernelSegments(
  { kernel, initrd, bootParams }: KernelPlace,
  params: BootParamsContent,
  initrdBytes: Buffer = Buffer.alloc(0),
): Segment[] {
  // The kernel is told of the initrd's bytes, not of the pages that they are in.
  const told = initrd && { start: initrd.start, end: initrd.start + initrdBytes.length };
  const addresses = { kernel: kernel.start, initrd: told, bootParams: bootParams.start };
  return [
    segmentOf(KERNEL, kernel, params.image.protectedMode),
    ...(initrd === undefined ? [] : [segmentOf(INITRD, initrd, initrdBytes)]),
    segmentOf(BOOT_PARAMS, bootParams, encodeBootParams(params, addresses)),
  ];
}

function requestedSegment({ name, range, content }: PlacedRequest, placed: PlacedImage): Segment {
  return segmentOf(name, range, typeof content === 'function' ? content(placed) : content);
}

function namedRange(segment: Segment): [string, Range] {
  return [segment.name, segmentRange(segment)];
}

function segmentOf(name: string, range: Range, bytes: Buffer): Segment {
  const memoryBytes = range.end - range.start;
  if (bytes.length > memoryBytes)
    throw new KexecError(
      `the segment ${name} has ${bytes.length} bytes, and ${memoryBytes} of memory were asked for; ask for more`,
    );
  return { name, address: range.start, bytes, memoryBytes };
}
