import { ContainerError, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { cstring, embed, pointer, struct, u8, u16, u32, u64, type ViewOf } from '../vmcore/view.ts';
import { readNode } from './container.ts';

/** kernel/printk/printk_ringbuffer.h, since 5.10: lockless rings of descriptors and of text. */
const prbDescRing = struct('prb_desc_ring', {
  countBits: u32.at('count_bits'),
  descs: pointer,
  infos: pointer,
  headId: u64.at('head_id'),
  tailId: u64.at('tail_id'),
});
const prbDataRing = struct('prb_data_ring', { sizeBits: u32.at('size_bits'), data: pointer });
const printkRingbuffer = struct('printk_ringbuffer', {
  descRing: embed(prbDescRing).at('desc_ring'),
  textRing: embed(prbDataRing).at('text_data_ring'),
});
const prbDesc = struct('prb_desc', {
  stateVar: u64.at('state_var'),
  begin: u64.at('text_blk_lpos.begin'),
  next: u64.at('text_blk_lpos.next'),
});
const printkInfo = struct('printk_info', {
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
const ID_BITS = 62;
const STATE_SHIFT = 62n;
const STATE_COMMITTED = 1n;
const STATE_FINALIZED = 2n;
/** Each text block starts with the id of its descriptor. */
const BLOCK_ID_BYTES = 8;
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
}

type Ring = ViewOf<typeof printkRingbuffer>;

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

/** The text of a descriptor; undefined if another record has since been written over it. */
function readText(
  kernel: Kernel,
  ring: Ring,
  desc: ViewOf<typeof prbDesc>,
  id: bigint,
  length: number,
): string | undefined {
  const { begin, next } = desc;
  if ((begin & 1n) === 1n && (next & 1n) === 1n) return '';
  const { sizeBits, data } = ring.textRing;
  const size = 2 ** sizeBits;
  // A block that would reach past the end of the ring has only its id there, and starts again at the ring's beginning.
  const isWrapped = begin >> BigInt(sizeBits) !== (next - 1n) >> BigInt(sizeBits);
  const start = isWrapped ? 0 : Number(BigInt.asUintN(sizeBits, begin));
  const room = isWrapped ? Number(BigInt.asUintN(sizeBits, next)) : Number(BigInt.asUintN(64, next - begin));
  if (room < BLOCK_ID_BYTES || start + room > size) return undefined;
  const { memory } = kernel;
  if (BigInt.asUintN(ID_BITS, memory.u64(data + BigInt(start))) !== id) return undefined;
  const bytes = memory.read(data + BigInt(start + BLOCK_ID_BYTES), Math.min(length, room - BLOCK_ID_BYTES));
  return bytes.toString('utf8');
}

/**
 * Records of the kernel's log, oldest first. Records that were being written or have been overwritten are left out. Throws
 * a ContainerError if the ring itself is damaged.
 */
export function* forEachLogRecord(kernel: Kernel): Generator<LogRecord> {
  const address = kernel.memory.pointer(kernel.symbol('prb'));
  const ring = kernel.bind(printkRingbuffer).at(address);
  readNode('printk ring', address, address, () => checkRing(address, ring));
  const descs = kernel.bind(prbDesc);
  const infos = kernel.bind(printkInfo);
  const { countBits, headId, tailId, descs: descTable, infos: infoTable } = ring.descRing;
  const count = Number(BigInt.asUintN(ID_BITS, headId - tailId)) + 1;
  if (count > 2 ** countBits)
    throw new ContainerError('printk ring', address, `is damaged: it holds ${count} records`);
  for (let i = 0; i < count; i++) {
    const id = BigInt.asUintN(ID_BITS, tailId + BigInt(i));
    const index = BigInt.asUintN(countBits, id);
    const desc = descs.at(descTable + index * BigInt(descs.size));
    const state = desc.stateVar >> STATE_SHIFT;
    if (BigInt.asUintN(ID_BITS, desc.stateVar) !== id) continue;
    if (state !== STATE_COMMITTED && state !== STATE_FINALIZED) continue;
    const info = infos.at(infoTable + index * BigInt(infos.size));
    const text = readText(kernel, ring, desc, id, info.text_len);
    if (text === undefined) continue;
    yield {
      sequence: Number(info.seq),
      timeNanoseconds: info.ts_nsec,
      facility: info.facility,
      level: info.level,
      callerId: info.caller_id,
      text,
      device: info.subsystem === '' ? '' : `${info.subsystem}:${info.device}`,
    };
  }
}

/** What could be read of the log. */
export interface LogRead {
  readonly records: readonly LogRecord[];
  /** What is wrong with the ring behind the last record; undefined if it was read to its end. */
  readonly damage: string | undefined;
}

/** The records of the log; of a damaged ring those that come before the damage. */
export function readLog(kernel: Kernel): LogRead {
  const records: LogRecord[] = [];
  try {
    for (const record of forEachLogRecord(kernel)) records.push(record);
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return { records, damage: error.message };
  }
  return { records, damage: undefined };
}

const NANOSECONDS = 1_000_000_000n;

/** A record the way dmesg(1) prints it: seconds since boot in brackets, further lines indented below the first. */
export function formatLogRecord(record: LogRecord): string {
  const seconds = (record.timeNanoseconds / NANOSECONDS).toString().padStart(5);
  const micros = ((record.timeNanoseconds % NANOSECONDS) / 1000n).toString().padStart(6, '0');
  const prefix = `[${seconds}.${micros}] `;
  return prefix + record.text.replaceAll('\n', `\n${' '.repeat(prefix.length)}`);
}
