import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import { RecordingMemory } from '../../lab/fixture/recording-memory.ts';
import { ELF_HEADER_BYTES } from '../../src/system/elf.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { Btf } from '../../src/vmcore/btf.ts';
import { BtfLayouts } from '../../src/vmcore/btf-layouts.ts';
import type { DeadKernel, OpenedFile } from '../../src/vmcore/dead-kernel.ts';
import type { DumpSource } from '../../src/vmcore/elf.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import type { Layouts } from '../../src/vmcore/layout.ts';
import { openFile } from '../../src/vmcore/mapping.ts';
import { kernelFrom, openKernel, openSource } from '../../src/vmcore/open.ts';

/** The dumps in test/fixtures/vmcore; see the README there. */
export const releases = ['debian13', 'debian12'] as const;
export type Release = (typeof releases)[number];

const directory = mkdtempSync(join(tmpdir(), 'otherworld-vmcore-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

/** What was unpacked; nobody changes it. */
const unpacked = new Map<string, Buffer>();

function content(name: string): Buffer {
  const packed = join(import.meta.dirname, '../fixtures/vmcore', `${name}.zst`);
  const bytes = unpacked.get(name) ?? zstdDecompressSync(readFileSync(packed));
  unpacked.set(name, bytes);
  return bytes;
}

/** Path of a file of this test run. */
export function scratch(name: string): string {
  return join(directory, name);
}

/** The dump's bytes, to be changed at will. */
export function dumpBytes(release: Release): Buffer {
  return Buffer.from(content(`${release}.vmcore`));
}

/** Path of the dump, unpacked once in a test process. */
export function dumpPath(release: Release): string {
  const path = scratch(release);
  if (!existsSync(path)) writeFileSync(path, content(`${release}.vmcore`));
  return path;
}

/** Structures that were declared after the dumps were made, by the BTF of the same kernel. */
const later = new Map<Release, BtfLayouts>();

/** The layouts of a dump, and those of `*.types.zst` for what it lacks: see the README there. */
export function laterLayouts(release: Release, layouts: Layouts): Layouts {
  const more = later.get(release) ?? new BtfLayouts(new Btf(content(`${release}.types`)));
  later.set(release, more);
  return {
    sizeOf: (name) => layouts.sizeOf(name) ?? more.sizeOf(name),
    member: (name, path) =>
      layouts.sizeOf(name) === undefined ? more.member(name, path) : layouts.member(name, path),
    enumerator: (name) => layouts.enumerator(name),
  };
}

/** A dump that was opened once in a test process: its symbols and types are those of every kernel in it. */
interface OpenedDump {
  readonly source: DumpSource;
  readonly kernel: DeadKernel;
  /** Frames that were looked at to find the kernel, its symbols and its types. */
  readonly frames: ReadonlySet<number>;
}

const dumps = new Map<Release, OpenedDump>();

function openedDump(release: Release): OpenedDump {
  let known = dumps.get(release);
  if (known === undefined) {
    const source = openSource(openFile(dumpPath(release)));
    const memory = new RecordingMemory(source.physical);
    const kernel = kernelFrom(unopened(release), { ...source, physical: memory });
    // Types are read when they are wanted first.
    kernel.layouts.sizeOf('task_struct');
    known = { source, kernel, frames: new Set([...memory.touched, ...memory.asked]) };
    dumps.set(release, known);
  }
  return known;
}

/** The dump of a kernel that has no file of its own to close. */
function unopened(release: Release): OpenedFile {
  return { path: dumpPath(release), close: () => undefined };
}

/** The kernel of the dump; nothing of it has been looked at but its symbols and types. */
export function openFixture(release: Release): Kernel {
  return openedDump(release).kernel.anew(openSource(openFile(dumpPath(release))).physical);
}

/** The dump's memory, to be damaged. */
export function fixtureMemory(release: Release): RecordingMemory {
  return new RecordingMemory(openedDump(release).source.physical);
}

/**
 * The kernel in a memory of {@link fixtureMemory}, as it would be opened. Only where what opening looks at is
 * damaged is all of that done again. Throws like `kernelFrom`.
 */
export function kernelIn(release: Release, memory: RecordingMemory): DeadKernel {
  const { source, kernel, frames } = openedDump(release);
  const isOther = memory.damaged().some((frame) => frames.has(frame));
  return isOther ? kernelFrom(unopened(release), { ...source, physical: memory }) : kernel.anew(memory);
}

/** Bytes to stand at a physical address in the place of the dump's. */
interface Patch {
  readonly physical: number;
  readonly bytes: Uint8Array;
}

/** The dump as it would be with the patches, opened. */
export function openPatched(release: Release, patches: readonly Patch[]): Kernel {
  const memory = fixtureMemory(release);
  for (const { physical, bytes } of patches) memory.replace(physical, bytes);
  return kernelIn(release, memory);
}

let copies = 0;

/** A copy of the dump's file with bytes written to places of it. */
function copyOf(
  release: Release,
  changes: readonly (readonly [offset: number, bytes: Uint8Array])[],
): string {
  const path = scratch(`patched-${copies++}`);
  copyFileSync(dumpPath(release), path);
  const file = openSync(path, 'r+');
  for (const [offset, bytes] of changes) writeSync(file, bytes, 0, bytes.length, offset);
  closeSync(file);
  return path;
}

/** Path of a copy of the dump with the patches. */
export function patchedDump(release: Release, patches: readonly Patch[]): string {
  const whole = content(`${release}.vmcore`);
  return copyOf(
    release,
    patches.map(({ physical, bytes }) => [fileOffset(whole, physical), bytes]),
  );
}

/** A copy of the dump in which the page of a physical address is missing, opened. */
export function withoutPage(release: Release, physical: number): Kernel {
  const whole = content(`${release}.vmcore`);
  const page = Math.floor(physical / PAGE_SIZE) * PAGE_SIZE;
  const headers = Number(whole.readBigUInt64LE(32));
  const count = whole.readUInt16LE(56);
  const segments = Array.from({ length: count }, (_, i) =>
    Buffer.from(whole.subarray(headers + i * 56, headers + i * 56 + 56)),
  );
  const cut = segments.find((segment) => {
    const start = Number(segment.readBigUInt64LE(24));
    const inside = page >= start && page < start + Number(segment.readBigUInt64LE(32));
    return segment.readUInt32LE(0) === 1 && inside;
  });
  if (cut === undefined)
    throw new Error(`the fixture does not hold physical address ${physical.toString(16)}`);
  const rest = Buffer.from(cut);
  const before = page - Number(cut.readBigUInt64LE(24));
  const after = BigInt(before + PAGE_SIZE);
  for (const at of [8, 24]) rest.writeBigUInt64LE(cut.readBigUInt64LE(at) + after, at);
  for (const at of [32, 40]) rest.writeBigUInt64LE(cut.readBigUInt64LE(at) - after, at);
  for (const at of [32, 40]) cut.writeBigUInt64LE(BigInt(before), at);
  // The table moves to the end of the file, where there is room for one more.
  const header = Buffer.from(whole.subarray(0, ELF_HEADER_BYTES));
  header.writeBigUInt64LE(BigInt(whole.length), 32);
  header.writeUInt16LE(count + 1, 56);
  const table = Buffer.concat([...segments, rest]);
  return openKernel(
    copyOf(release, [
      [0, header],
      [whole.length, table],
    ]),
  );
}

/** Where a physical address is in an ELF dump. */
export function fileOffset(elf: Buffer, physical: number): number {
  const headers = Number(elf.readBigUInt64LE(32));
  for (let i = 0; i < elf.readUInt16LE(56); i++) {
    const at = headers + i * 56;
    const start = Number(elf.readBigUInt64LE(at + 24));
    const length = Number(elf.readBigUInt64LE(at + 32));
    if (elf.readUInt32LE(at) === 1 && physical >= start && physical < start + length) {
      return Number(elf.readBigUInt64LE(at + 8)) + (physical - start);
    }
  }
  throw new Error(`the fixture does not hold physical address ${physical.toString(16)}`);
}

/** A 64-bit value as the machine stores it. */
export function word(value: bigint): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt.asUintN(64, value));
  return buffer;
}

/** One process as the guest's own /proc had it. */
export interface TrueProcess {
  readonly pid: number;
  readonly maps: string[];
  /** `fd target`, by fd. */
  readonly files: string[];
  readonly threads: string[];
  /** `tid function+0x10/0x20`, innermost first. */
  readonly stacks: string[];
  readonly stat: string;
}

/** What the guest said of itself. */
export interface Truth {
  readonly processes: readonly TrueProcess[];
  readonly symbols: ReadonlyMap<string, bigint>;
  /** PID of guest-program.c, and its areas, huge area and shared area. */
  readonly program: {
    readonly pid: number;
    readonly areas: number;
    readonly huge: number;
    readonly shared: number;
  };
  /** PIDs of guest-kinds.c, of its companions and of its children. */
  readonly kinds: {
    readonly pid: number;
    readonly tcp: number;
    readonly systemV: number;
    readonly seccomp: number;
    readonly nothing: number;
    readonly stopped: number;
    readonly zombie: number;
  };
}

export function truthOf(release: Release): Truth {
  const processes: (TrueProcess & { stat: string })[] = [];
  const symbols = new Map<string, bigint>();
  let kinds = { pid: 0, tcp: 0, systemV: 0, seccomp: 0, nothing: 0, stopped: 0, zombie: 0 };
  let program = { pid: 0, areas: 0, huge: 0, shared: 0 };
  for (const line of content(`${release}.truth`).toString('latin1').split('\n')) {
    const space = line.indexOf(' ');
    const [key, rest] = [line.slice(0, space), line.slice(space + 1)];
    const current = processes.at(-1);
    if (key === 'process')
      processes.push({ pid: Number(rest), maps: [], files: [], threads: [], stacks: [], stat: '' });
    else if (key === 'map') current?.maps.push(rest);
    else if (key === 'file') current?.files.push(rest);
    else if (key === 'thread') current?.threads.push(rest);
    else if (key === 'stack') current?.stacks.push(rest.replace('[<0>] ', ''));
    else if (key === 'stat' && current !== undefined) current.stat = rest;
    else if (key === 'symbol') symbols.set(rest.split(' ')[2] ?? '', BigInt(`0x${rest.split(' ')[0]}`));
    else if (key === 'program') {
      const [pid = 0, areas = 0, huge = 0, shared = 0] = rest.split(' ').map(Number);
      program = { pid, areas, huge, shared };
    } else if (key === 'kinds') {
      const [pid = 0, tcp = 0, systemV = 0, seccomp = 0, nothing = 0, stopped = 0, zombie = 0] = rest
        .split(' ')
        .map(Number);
      kinds = { pid, tcp, systemV, seccomp, nothing, stopped, zombie };
    }
  }
  for (const { files } of processes) files.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
  return { processes, symbols, program, kinds };
}
