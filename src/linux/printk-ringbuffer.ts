import { bytesToText } from '../system/byte-text.ts';
import { ContainerError, isDamage } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { cstring, embed, pointer, struct, u8, u16, u32, u64, type ViewOf } from '../vmcore/view.ts';
import { readNode } from './container.ts';

/** kernel/printk/printk_ringbuffer.h, since 5.10: lockless rings of descriptors and of text. */
export const prbDescRing = struct('prb_desc_ring', {
  countBits: u32.at('count_bits'),
  descs: pointer,
  infos: pointer,
  headId: u64.at('head_id'),
  tailId: u64.at('tail_id'),
});
export const prbDataRing = struct('prb_data_ring', {
  sizeBits: u32.at('size_bits'),
  data: pointer,
  tailLpos: u64.at('tail_lpos'),
});
export const printkRingbuffer = struct('printk_ringbuffer', {
  descRing: embed(prbDescRing).at('desc_ring'),
  textRing: embed(prbDataRing).at('text_data_ring'),
});
export const prbDesc = struct('prb_desc', {
  stateVar: u64.at('state_var'),
  begin: u64.at('text_blk_lpos.begin'),
  next: u64.at('text_blk_lpos.next'),
});
export const printkInfo = struct('printk_info', {
  seq: u64,
  ts_nsec: u64,
  text_len: u16,
  facility: u8,
  level: u8,
  caller_id: u32,
  subsystem: cstring.at('dev_info.subsystem'),
  device: cstring.at('dev_info.device'),
});

/** Bits of a descriptor's id; the two above are its state. */
export const ID_BITS = 62;
/** Enough for a record each millisecond in seven weeks; the ids begin below 2^32. */
const SEQUENCE_BITS = 32;
const STATE_SHIFT = 62n;
const STATE_RESERVED = 0n;
const STATE_REUSABLE = 3n;
/** Each text block starts with the id of its descriptor. */
const BLOCK_ID_BYTES = 8;
/** Places of texts that are none (kernel/printk/printk_ringbuffer.h). */
const FAILED_LPOS = 1n;
const NO_LPOS = 3n;
const MAX_SLACK = 32;
/** The same of a text of which nothing is left without its prefix and its newline. */
const MAX_SLACK_OF_NOTHING = 8;
/** Records that are looked for on both sides of those that the ring counts. */
const MAX_LOST = 512;
/** CONFIG_LOG_BUF_SHIFT is at most 25; `log_buf_len=` at most 2^31 bytes. */
const MAX_COUNT_BITS = 26;
const MAX_SIZE_BITS = 31;

/** One record of the kernel's log. */
export interface LogRecord {
  /** Sequence number since boot. */
  readonly sequence: number;
  /** Since boot, in nanoseconds of the local clock. */
  readonly timeNanoseconds: bigint;
  /** syslog(2) facility: 0 is the kernel, 1 user space. */
  readonly facility: number;
  /** syslog level: 0 emergency to 7 debug. */
  readonly level: number;
  /** Thread that wrote it, or, with the top bit set, CPU. */
  readonly callerId: number;
  /** May hold several lines; no newline at the end. */
  readonly text: string;
  /** Device that it is about, as `subsystem:name`; empty for most. */
  readonly device: string;
  /** Why the text may not be what was written; undefined if nothing speaks against it. */
  readonly doubt?: string;
}

/** Records that are not there, though the ring counts them: one after the other, between two others. */
export interface LogGap {
  /** Sequence number of the first. */
  readonly sequence: number;
  readonly missing: number;
  /** What is wrong with the first: a sentence without its subject. */
  readonly problem: string;
}

export type LogEntry = LogRecord | LogGap;

/** Whether an entry stands for records that are missing. */
export function isGap(entry: LogEntry): entry is LogGap {
  return 'missing' in entry;
}

type Ring = ViewOf<typeof printkRingbuffer>;
type Desc = ViewOf<typeof prbDesc>;

function checkRing(address: bigint, ring: Ring): void {
  const { countBits } = ring.descRing;
  const { sizeBits } = ring.textRing;
  if (countBits > MAX_COUNT_BITS || sizeBits > MAX_SIZE_BITS || sizeBits < 4) {
    throw new ContainerError(
      'printk ring',
      address,
      `is damaged: 2^${countBits} records, 2^${sizeBits} bytes`,
    );
  }
}

/** What is known of one place of the ring. */
export type Slot = LogRecord | 'overwritten' | { readonly problem: string };

/** Reads single records of a ring. */
export class RingReader {
  readonly #kernel: Kernel;
  readonly #ring: Ring;
  readonly #countBits: number;

  constructor(kernel: Kernel, ring: Ring) {
    this.#kernel = kernel;
    this.#ring = ring;
    this.#countBits = ring.descRing.countBits;
  }

  /**
   * Descriptors are used in turn, and the first of all has the id that is a whole round before 0 (DESC0_ID,
   * as an unsigned int): so an id tells the record's number.
   */
  sequenceOf(id: bigint): number {
    return Number(BigInt.asUintN(SEQUENCE_BITS, id + (1n << BigInt(this.#countBits))));
  }

  desc(id: bigint): Desc {
    const descs = this.#kernel.bind(prbDesc);
    return descs.at(this.#ring.descRing.descs + this.#index(id) * BigInt(descs.size));
  }

  /** Whether a record is in the ring by this id, as only a head or tail that is damaged does not tell. */
  isWritten(id: bigint): boolean {
    try {
      const { stateVar } = this.desc(id);
      const state = stateVar >> STATE_SHIFT;
      return (
        BigInt.asUintN(ID_BITS, stateVar) === BigInt.asUintN(ID_BITS, id) &&
        state !== STATE_RESERVED &&
        state !== STATE_REUSABLE
      );
    } catch (error) {
      if (!isDamage(error)) throw error;
      return false;
    }
  }

  slot(id: bigint): Slot {
    try {
      return this.#slot(id);
    } catch (error) {
      if (!isDamage(error)) throw error;
      return { problem: `cannot be read: ${error.message}` };
    }
  }

  #slot(id: bigint): Slot {
    const desc = this.desc(id);
    const { stateVar } = desc;
    const state = stateVar >> STATE_SHIFT;
    const found = BigInt.asUintN(ID_BITS, stateVar);
    const round = 1n << BigInt(this.#countBits);
    const isBeingReserved = state === STATE_REUSABLE && found === BigInt.asUintN(ID_BITS, id - round);
    if (isBeingReserved) return { problem: 'was being written when the kernel died' };
    if (found !== id) return { problem: 'is damaged: its descriptor is not its own' };
    if (state === STATE_RESERVED) return { problem: 'was being written when the kernel died' };
    if (state === STATE_REUSABLE) {
      if (this.#isBeforeText(desc)) return 'overwritten';
      return { problem: 'is damaged: it is given up, but its text is not overwritten' };
    }
    return this.#record(id, desc);
  }

  #record(id: bigint, desc: Desc): Slot {
    const infos = this.#kernel.bind(printkInfo);
    const info = infos.at(this.#ring.descRing.infos + this.#index(id) * BigInt(infos.size));
    const sequence = this.sequenceOf(id);
    if (BigInt.asUintN(SEQUENCE_BITS, info.seq) !== BigInt(sequence)) {
      return { problem: `is damaged: it says that it is record ${info.seq}` };
    }
    if (desc.begin === FAILED_LPOS && desc.next === FAILED_LPOS) {
      return { problem: 'had no room in the ring for its text' };
    }
    const text = this.#text(desc, id, info.text_len);
    if (text === undefined) {
      const isGone = !hasNoText(desc) && this.#isBeforeText(desc);
      return isGone ? 'overwritten' : { problem: 'is damaged: its text is not its own' };
    }
    const doubt = doubtOf(text, hasNoText(desc) ? 0 : blockOf(desc, this.#ring.textRing.sizeBits).room);
    return {
      sequence,
      timeNanoseconds: info.ts_nsec,
      facility: info.facility,
      level: info.level,
      callerId: info.caller_id,
      text: bytesToText(text),
      device: info.subsystem === '' ? '' : `${info.subsystem}:${info.device}`,
      ...(doubt === undefined ? {} : { doubt }),
    };
  }

  /** The text of a descriptor; undefined if it is not where the descriptor says. */
  #text(desc: Desc, id: bigint, length: number): Buffer | undefined {
    const { begin, next } = desc;
    if (hasNoText(desc))
      return length === 0 && begin === NO_LPOS && next === NO_LPOS ? Buffer.alloc(0) : undefined;
    const { sizeBits, data } = this.#ring.textRing;
    const { start, room } = blockOf(desc, sizeBits);
    if (room < BLOCK_ID_BYTES + length || start + room > 2 ** sizeBits) return undefined;
    const { memory } = this.#kernel;
    if (BigInt.asUintN(ID_BITS, memory.u64(data + BigInt(start))) !== id) return undefined;
    return memory.read(data + BigInt(start + BLOCK_ID_BYTES), length);
  }

  /** Whether the ring of texts has given up a descriptor's block; one without a text needs none. */
  #isBeforeText(desc: Desc): boolean {
    return hasNoText(desc) || BigInt.asIntN(64, this.#ring.textRing.tailLpos - desc.begin) > 0n;
  }

  #index(id: bigint): bigint {
    return BigInt.asUintN(this.#countBits, id);
  }
}

/** Where a descriptor's block is in the ring of texts, and how long: its id, and the text. */
function blockOf({ begin, next }: Desc, sizeBits: number): { readonly start: number; readonly room: number } {
  // A block that would reach past the end of the ring has only its id there, and starts again at the ring's
  // beginning.
  const isWrapped = begin >> BigInt(sizeBits) !== (next - 1n) >> BigInt(sizeBits);
  return isWrapped
    ? { start: 0, room: Number(BigInt.asUintN(sizeBits, next)) }
    : { start: Number(BigInt.asUintN(sizeBits, begin)), room: Number(BigInt.asUintN(64, next - begin)) };
}

/**
 * Why a text may not be what was written. Its block is longer than it by a prefix, a newline, a zero byte and
 * what fills up a word.
 *
 * @param room length of its block; 0 for an empty text, which needs none
 */
function doubtOf(text: Buffer, room: number): string | undefined {
  if (text.includes(0) || text.includes(0xff)) return 'bytes of its text are 0x00 or 0xff';
  const slack = text.length === 0 ? MAX_SLACK_OF_NOTHING : MAX_SLACK;
  return room > BLOCK_ID_BYTES + text.length + slack
    ? `it says that its text has ${text.length} bytes, and has room for more`
    : undefined;
}

/**
 * NO_LPOS for an empty text, FAILED_LPOS where there was no room for one: both are odd, which no place is.
 */
function hasNoText({ begin, next }: Desc): boolean {
  return (begin & 1n) === 1n && (next & 1n) === 1n;
}

/** First and last id of a ring, and what is wrong with those that it names itself. */
export interface Extent {
  readonly first: bigint;
  readonly count: number;
  readonly damage: string | undefined;
}

/** The ring says where it begins and ends; a record beyond that is one that it has lost. */
function extentOf(reader: RingReader, address: bigint, ring: Ring): Extent {
  const { countBits, headId, tailId } = ring.descRing;
  const most = 2 ** countBits;
  let first = tailId;
  let count = Number(BigInt.asUintN(ID_BITS, headId - tailId)) + 1;
  if (count > most) throw new ContainerError('printk ring', address, `is damaged: it holds ${count} records`);
  const before = count;
  for (let ahead = Math.min(most - count, MAX_LOST); ahead > 0; ahead--) {
    if (!reader.isWritten(tailId + BigInt(count + ahead - 1))) continue;
    count += ahead;
    break;
  }
  for (let behind = Math.min(most - count, MAX_LOST); behind > 0; behind--) {
    if (!reader.isWritten(tailId - BigInt(behind))) continue;
    first = tailId - BigInt(behind);
    count += behind;
    break;
  }
  const damage = count === before ? undefined : `it counts ${before} records of at least ${count}`;
  return { first, count, damage };
}

/** The kernel's ring, and which records it has. Throws a ContainerError if the ring itself is damaged. */
export function openRing(kernel: Kernel): { readonly reader: RingReader; readonly extent: Extent } {
  const address = kernel.memory.pointer(kernel.symbol('prb'));
  const ring = kernel.bind(printkRingbuffer).at(address);
  readNode('printk ring', address, address, () => checkRing(address, ring));
  const reader = new RingReader(kernel, ring);
  return { reader, extent: extentOf(reader, address, ring) };
}
