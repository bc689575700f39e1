import type { Note, NoteFormat, VectorState } from '../arch/index.ts';
import { textToBytes } from '../system/byte-text.ts';
import { PAGE_SIZE } from '../system/page.ts';

/** Types of notes (include/uapi/linux/elf.h). */
const NT_PRSTATUS = 1;
const NT_PRPSINFO = 3;
const NT_AUXV = 6;
const NT_FILE = 0x46494c45;

/**
 * `struct elf_prpsinfo` (include/linux/elfcore.h), and the room that it has for the name and the arguments.
 */
const PRPSINFO_BYTES = 136;
const FNAME = { offset: 40, bytes: 16 } as const;
const PSARGS = { offset: 56, bytes: 80 } as const;
/** Letters of `pr_sname`; `pr_state` is the place among them. */
const STATES = 'RSDTZW';

/** One thread as a core shows it. */
export interface CoreThread {
  readonly tid: number;
  readonly comm: string;
  /** By the architecture's names. */
  readonly registers: Readonly<Record<string, bigint>>;
  /** Undefined where they cannot be read. */
  readonly vector: VectorState | undefined;
  /** Bit N-1 set: signal N. */
  readonly pendingSignals: bigint;
  readonly blockedSignals: bigint;
  readonly userNanoseconds: bigint;
  readonly systemNanoseconds: bigint;
}

/** A process as a core shows it, but for its memory. */
export interface CoreProcess {
  readonly pid: number;
  readonly ppid: number;
  readonly pgid: number;
  readonly sid: number;
  readonly comm: string;
  /** As in /proc/PID/stat. */
  readonly state: string;
  readonly nice: number;
  /** PF_* of the kernel. */
  readonly flags: number;
  readonly uid: number;
  readonly gid: number;
  /** A zero byte after each. */
  readonly arguments: Uint8Array;
  readonly auxv: readonly bigint[];
  /** The first is the one that a debugger shows first. */
  readonly threads: readonly CoreThread[];
}

/** A mapped file: addresses and offset in bytes. */
export interface MappedRange {
  readonly start: number;
  readonly end: number;
  readonly offset: number;
  readonly path: string;
}

function writeTimeval(at: Buffer, nanoseconds: bigint): void {
  at.writeBigUInt64LE(nanoseconds / 1_000_000_000n, 0);
  at.writeBigUInt64LE((nanoseconds % 1_000_000_000n) / 1000n, 8);
}

/**
 * `struct elf_prstatus` (include/linux/elfcore.h): what lies before the registers is the same on all 64-bit
 * processors. No signal has ended the process: `pr_cursig` is 0.
 */
function prstatus(process: CoreProcess, thread: CoreThread, format: NoteFormat): Note {
  const description = Buffer.alloc(format.bytes);
  description.writeBigUInt64LE(thread.pendingSignals, 16);
  description.writeBigUInt64LE(thread.blockedSignals, 24);
  for (const [i, number] of [thread.tid, process.ppid, process.pgid, process.sid].entries()) {
    description.writeInt32LE(number, format.pid + 4 * i);
  }
  writeTimeval(description.subarray(48), thread.userNanoseconds);
  writeTimeval(description.subarray(64), thread.systemNanoseconds);
  for (const [i, name] of format.names.entries()) {
    description.writeBigUInt64LE(BigInt.asUintN(64, thread.registers[name] ?? 0n), format.registers + i * 8);
  }
  description.writeInt32LE(thread.vector === undefined ? 0 : 1, format.fpValid);
  return { name: 'CORE', type: NT_PRSTATUS, description };
}

function prpsinfo(process: CoreProcess): Note {
  const description = Buffer.alloc(PRPSINFO_BYTES);
  const state = STATES.indexOf(process.state);
  description.writeUInt8(Math.max(0, state), 0);
  description.write(state < 0 ? '.' : process.state, 1, 'latin1');
  description.writeUInt8(process.state === 'Z' ? 1 : 0, 2);
  description.writeInt8(process.nice, 3);
  description.writeBigUInt64LE(BigInt(process.flags), 8);
  const numbers = [process.uid, process.gid, process.pid, process.ppid, process.pgid, process.sid];
  for (const [i, number] of numbers.entries()) description.writeUInt32LE(number >>> 0, 16 + 4 * i);
  textToBytes(process.comm).copy(description, FNAME.offset, 0, FNAME.bytes - 1);
  const shown = Uint8Array.from(process.arguments, (byte) => (byte === 0 ? 0x20 : byte));
  description.set(shown.subarray(0, PSARGS.bytes - 1), PSARGS.offset);
  return { name: 'CORE', type: NT_PRPSINFO, description };
}

function auxv({ auxv: words }: CoreProcess): Note {
  const description = Buffer.alloc(8 * words.length);
  for (const [i, word] of words.entries()) description.writeBigUInt64LE(word, 8 * i);
  return { name: 'CORE', type: NT_AUXV, description };
}

/** Layout: fill_files_note() of fs/binfmt_elf.c. Offsets are in pages. */
function mappedFiles(files: readonly MappedRange[]): Note {
  const table = Buffer.alloc(8 * (2 + 3 * files.length));
  table.writeBigUInt64LE(BigInt(files.length), 0);
  table.writeBigUInt64LE(BigInt(PAGE_SIZE), 8);
  for (const [i, { start, end, offset }] of files.entries()) {
    for (const [j, value] of [start, end, offset / PAGE_SIZE].entries()) {
      table.writeBigUInt64LE(BigInt(value), 8 * (2 + 3 * i + j));
    }
  }
  const names = files.map(({ path }) => Buffer.concat([textToBytes(path), Buffer.of(0)]));
  return { name: 'CORE', type: NT_FILE, description: Buffer.concat([table, ...names]) };
}

function encode({ name, type, description }: Note): Buffer {
  const nameBytes = name.length + 1;
  const head = Buffer.alloc(12 + Math.ceil(nameBytes / 4) * 4);
  head.writeUInt32LE(nameBytes, 0);
  head.writeUInt32LE(description.length, 4);
  head.writeUInt32LE(type, 8);
  head.write(name, 12, 'latin1');
  return Buffer.concat([head, description, Buffer.alloc(-description.length & 3)]);
}

/**
 * The notes of a core in the order in which the kernel writes them: debuggers take what follows a NT_PRSTATUS
 * to be that thread's.
 */
export function coreNotes(process: CoreProcess, files: readonly MappedRange[], format: NoteFormat): Buffer {
  const ofProcess = [prpsinfo(process), auxv(process), mappedFiles(files)];
  const notes = process.threads.flatMap((thread, i) => [
    prstatus(process, thread, format),
    ...(i === 0 ? ofProcess : []),
    ...(thread.vector === undefined ? [] : format.vectorNotes(thread.vector)),
  ]);
  return Buffer.concat(notes.map(encode));
}
