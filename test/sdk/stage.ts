import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import type { RecordSource } from '../../src/capture/crash-procedure.ts';
import type { UserMemory } from '../../src/linux/readers/user-memory.ts';
import type { MemfdFile } from '../../src/model/file.ts';
import { noFiles } from '../../src/model/file.ts';
import type { ProcessGroup } from '../../src/model/group.ts';
import type { Vma } from '../../src/model/memory.ts';
import { listedRuns } from '../../src/model/page-runs.ts';
import type { FpuState, Process, Sigaction, Thread, UserRegisters } from '../../src/model/process.ts';
import { newFindings } from '../../src/model/verdict.ts';
import { build } from './build.ts';

/** Order of `struct user_regs_struct`. */
const registerNames: readonly (keyof UserRegisters)[] = [
  ...([
    'r15',
    'r14',
    'r13',
    'r12',
    'bp',
    'bx',
    'r11',
    'r10',
    'r9',
    'r8',
    'ax',
    'cx',
    'dx',
    'si',
    'di',
  ] as const),
  ...(['origAx', 'ip', 'cs', 'flags', 'sp', 'ss', 'fsBase', 'gsBase', 'ds', 'es', 'fs', 'gs'] as const),
];

type Piped = ChildProcessByStdio<Writable, Readable, null>;

/**
 * A process of this machine that stands still, as a group of the model, and the way to change it and let it
 * go.
 */
export interface Staged {
  readonly group: ProcessGroup;
  readonly kernel: RecordSource;
  /**
   * Makes the process what the group says: registers and vector state of its thread, overridden pages, new
   * signals.
   */
  apply(group: ProcessGroup): Promise<void>;
}

export interface Subject {
  readonly pid: number;
  /** Lines of its standard output after the first. */
  readonly lines: AsyncIterator<string>;
  /** Its exit status, or the name of the signal that ended it. */
  readonly exit: Promise<string>;
}

/** Starts the C subject in a mode; resolves when it says that it may be stopped. */
export function startSubject(mode: string): Promise<Subject> {
  return start(build('subject.c'), [mode]);
}

/** Starts a program that prints the line `{"ready":0}` when it has registered. */
export async function start(command: string, options: readonly string[]): Promise<Subject> {
  const child = spawn(command, options, { stdio: ['ignore', 'pipe', 'inherit'] });
  const exit = new Promise<string>((resolve) => {
    child.on('exit', (code, signal) => resolve(signal ?? String(code)));
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const first = await lines.next();
  if (child.pid === undefined || first.value !== '{"ready":0}') throw new Error(`${command}: ${first.value}`);
  return { pid: child.pid, lines, exit };
}

/** The code of a process of this machine, as `UserMemory` reads that of a dead one. */
export function codeOf(pid: number): Pick<UserMemory, 'read'> {
  return {
    read: (address, length) => ({
      kind: 'bytes',
      bytes: Buffer.from(readMemory(pid, Number(address), length)),
    }),
  };
}

/** Stops a process at whatever instruction it is. */
export async function stage(pid: number): Promise<Staged> {
  const helper: Piped = spawn(build('stage.c'), [String(pid)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const line: Interface = createInterface({ input: helper.stdout });
  const { value = '' } = await line[Symbol.asyncIterator]().next();
  const state: StageState = JSON.parse(value);
  const group = groupOf(pid, state);
  return {
    group,
    kernel: {
      symbolMaybe: () => 0n,
      memory: { u32: (address: bigint) => state.components[Number(address) / 4]?.[0] ?? 0 },
      physical: {
        withView: <T>(address: number, length: number, use: (bytes: Uint8Array) => T): T =>
          use(readMemory(pid, address, length)),
      },
    } as unknown as RecordSource,
    apply: (changed) => applyTo(helper, changed, state),
  };
}

interface StageState {
  readonly regs: string;
  readonly xstate: string;
  readonly mask: string;
  readonly components: readonly (readonly [number, number])[];
}

function readMemory(pid: number, address: number, length: number): Uint8Array {
  const bytes = Buffer.alloc(length);
  const fd = openSync(`/proc/${pid}/mem`, 'r');
  readSync(fd, bytes, 0, length, address);
  closeSync(fd);
  return bytes;
}

function groupOf(pid: number, state: StageState): ProcessGroup {
  const file: MemfdFile = {
    ...{ type: 'memfd', id: 1, flags: 2, position: 0n, inodeId: 1 },
    owner: { uid: 0, euid: 0, signal: 0, pidType: 0, pid: 0 },
  };
  const memfd = {
    inodeId: 1,
    shmid: 1,
    name: 'otherworld',
    uid: 0,
    gid: 0,
    mode: 0o777,
    sizeBytes: 16384,
    seals: 0,
  };
  return {
    ...{
      id: pid,
      freePid: 199_999,
      sharedMemory: [],
      segments: [],
      semaphores: [],
      messageQueues: [],
      clocks: { monotonic: 0n, boottime: 0n },
    },
    files: { ...noFiles, files: [file], memfds: [memfd] },
    processes: [processOf(pid, state)],
  };
}

function processOf(pid: number, state: StageState): Process {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const caught = BigInt(`0x${/^SigCgt:\s*(\w+)$/m.exec(status)?.[1]}`);
  const sigactions = Array.from({ length: 64 }, (_, index): Sigaction => {
    const handler = (caught >> BigInt(index)) & 1n ? 0x1000n : 0n;
    return { handler, flags: 0n, restorer: 0n, mask: 0n };
  });
  const partial = {
    ...{
      pid,
      comm: 'subject',
      state: 'alive',
      sigactions,
      sharedPendingSignals: [],
      findings: newFindings(),
    },
    threads: [threadOf(pid, state)],
    memory: { vmas: vmasOf(pid) },
  };
  return partial as unknown as Process;
}

function vmasOf(pid: number): Vma[] {
  const maps = readFileSync(`/proc/${pid}/maps`, 'utf8').trim().split('\n');
  return maps.map((text) => {
    const [, from, to, rights = ''] = /^(\w+)-(\w+) (\S+)/.exec(text) ?? [];
    const start = Number.parseInt(from ?? '', 16);
    const end = Number.parseInt(to ?? '', 16);
    const prot = (rights[0] === 'r' ? 1 : 0) | (rights[1] === 'w' ? 2 : 0) | (rights[2] === 'x' ? 4 : 0);
    const isRecord = text.includes('/memfd:otherworld');
    const runs = listedRuns(isRecord ? [{ address: start, pages: 1, physical: start }] : []);
    const kind = isRecord ? 'file-private' : 'anonymous';
    return { start, end, prot, kind, runs, fileId: isRecord ? 1 : undefined } as unknown as Vma;
  });
}

function threadOf(pid: number, state: StageState): Thread {
  const regs = Buffer.from(state.regs, 'hex');
  const registers = Object.fromEntries(registerNames.map((name, i) => [name, regs.readBigUInt64LE(8 * i)]));
  const partial = {
    ...{ tid: pid, comm: 'subject', registers, fpu: fpuOf(state) },
    blockedSignals: Buffer.from(state.mask, 'hex').readBigUInt64LE(),
    altStack: { sp: 0n, sizeBytes: 0n, flags: 2 },
    syscall: { outcome: 'resume', syscall: undefined, reason: 'was in user mode' },
  };
  return partial as unknown as Thread;
}

function fpuOf(state: StageState): FpuState {
  const area = Buffer.from(state.xstate, 'hex');
  const xstateBv = area.readBigUInt64LE(512);
  const components = state.components.flatMap(([offset, size], number) =>
    number >= 2 && (xstateBv >> BigInt(number)) & 1n
      ? [{ number, data: area.subarray(offset, offset + size) }]
      : [],
  );
  return { fxsave: area.subarray(0, 512), xstateBv, components };
}

async function applyTo(helper: Piped, group: ProcessGroup, state: StageState): Promise<void> {
  const [process] = group.processes;
  const thread = process?.threads[0];
  if (process === undefined || thread === undefined) throw new Error('no thread to change');
  const regs = Buffer.alloc(8 * registerNames.length);
  registerNames.forEach((name, index) => {
    regs.writeBigUInt64LE(thread.registers[name], 8 * index);
  });
  const area = Buffer.from(state.xstate, 'hex').fill(0, 0, 464).fill(0, 512);
  area.set(thread.fpu.fxsave.subarray(0, 464));
  area.writeBigUInt64LE(thread.fpu.xstateBv ?? 0n, 512);
  for (const { number, data } of thread.fpu.components) area.set(data, state.components[number]?.[0]);
  const orders = [
    ...(process.memory?.overrides ?? []).map(
      ({ address, bytes }) => `mem ${address} ${Buffer.from(bytes).toString('hex')}`,
    ),
    ...process.sharedPendingSignals.map((info) => `queue ${info[0]}`),
    `regs ${regs.toString('hex')}`,
    `xstate ${area.toString('hex')}`,
    'go',
  ];
  const ended = new Promise<number | null>((resolve) => helper.on('exit', resolve));
  helper.stdin.end(`${orders.join('\n')}\n`);
  const status = await ended;
  if (status !== 0) throw new Error(`the stage helper ended with ${status}`);
}
