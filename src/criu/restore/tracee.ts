import { closeSync, openSync, readdirSync, readFileSync, readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { runningArchitecture } from '../../arch/index.ts';
import { SIGINFO_BYTES } from '../../system/abi.ts';
import { errnoText } from '../../system/errno.ts';
import {
  __WALL,
  PTRACE_CONT,
  PTRACE_DETACH,
  PTRACE_GETREGS,
  PTRACE_GETSIGMASK,
  PTRACE_INTERRUPT,
  PTRACE_O_EXITKILL,
  PTRACE_O_SUSPEND_SECCOMP,
  PTRACE_O_TRACESYSGOOD,
  PTRACE_PEEKSIGINFO,
  PTRACE_PEEKSIGINFO_SHARED,
  PTRACE_SEIZE,
  PTRACE_SETREGS,
  PTRACE_SETSIGMASK,
  PTRACE_SYSCALL,
  ptrace,
  ptraceNumber,
  ptracePeek,
  WNOHANG,
  waitpid,
} from '../../system/ptrace.ts';

/** `PTRACE_EVENT_STOP`, as bits 16 and up of a status. */
const EVENT_STOP = 128;
const { SIGTRAP, SIGSTOP } = constants.signals;
/** More than a process that lives has pending at a time, of the signals that are looked for. */
const MAX_PEEKED = 4096;

const { ptraceRegisters: offsets, systemCalls } = runningArchitecture();
const ALL_SIGNALS = 0xffff_ffff_ffff_ffffn;

const LIMIT_MILLISECONDS = 10_000;

/** A process could not be held or made to do something; the message names it and the step. */
export class TraceeError extends Error {
  override readonly name = 'TraceeError';
}

/**
 * How a thread has stopped: at a system call, by a signal that it is about to get, or because its tracer or a
 * group stop wants it.
 */
interface Stop {
  readonly kind: 'syscall' | 'signal' | 'trap';
  readonly signal: number;
}

/** A line of /proc/PID/maps. */
export interface Area {
  readonly start: number;
  readonly end: number;
  readonly access: string;
  readonly name: string;
}

/** The areas of a process. */
export function areasOf(pid: number): Area[] {
  const lines = readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n').filter(Boolean);
  return lines.map((line) => {
    const [range = '', access = '', , , , name = ''] = line.split(/ +/);
    const [start = 0, end = 0] = range.split('-').map((address) => Number.parseInt(address, 16));
    return { start, end, access, name };
  });
}

/**
 * A thread's own filters must not stand in the way of the calls that it is made to do (seccomp(2)). If this
 * program ends meanwhile, the registers of such a call are all that it would go on with: it must not.
 */
function optionsFor(tid: number): number {
  const [, mode = '0'] = /^Seccomp:\t(\d)$/m.exec(readFileSync(`/proc/${tid}/status`, 'latin1')) ?? [];
  const suspended = mode === '0' ? 0 : PTRACE_O_SUSPEND_SECCOMP;
  return PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | suspended;
}

const sleeper = new Int32Array(new SharedArrayBuffer(4));

/**
 * A process all of whose threads are held by ptrace(2), so that they can be made to do system calls. They
 * must be about to run in user mode: stopped by a debugger, frozen by their cgroup, or asleep in a call that
 * can be made again.
 */
export class Tracee {
  readonly pid: number;
  readonly tids: readonly number[];
  readonly #registers: ReadonlyMap<number, Buffer>;
  readonly #masks: ReadonlyMap<number, bigint>;
  #instruction: number | undefined;

  /**
   * Holds the process, with all signals blocked. Throws a TraceeError, and lets go of it, if that is not
   * possible.
   */
  constructor(pid: number) {
    this.pid = pid;
    this.tids = readdirSync(`/proc/${pid}/task`).map(Number);
    const held: number[] = [];
    try {
      for (const tid of this.tids) {
        this.#must('hold', ptraceNumber(PTRACE_SEIZE, tid, 0, optionsFor(tid)));
        held.push(tid);
        this.#must('interrupt', ptraceNumber(PTRACE_INTERRUPT, tid, 0, 0));
        this.#wait(tid);
      }
      this.#registers = new Map(this.tids.map((tid) => [tid, this.#get(tid)]));
      this.#masks = new Map(this.tids.map((tid) => [tid, this.#mask(tid)]));
      this.block(ALL_SIGNALS);
    } catch (error) {
      for (const tid of held) ptraceNumber(PTRACE_DETACH, tid, 0, 0);
      throw error;
    }
  }

  /** Lets the process go on where it was held, with the signals blocked that were. */
  release(): void {
    try {
      for (const [tid, registers] of this.#registers) this.#set(tid, registers);
      for (const [tid, mask] of this.#masks) this.#setMask(tid, mask);
    } finally {
      for (const tid of this.tids) ptraceNumber(PTRACE_DETACH, tid, 0, 0);
    }
  }

  /** Sets the signals that all threads block for now. */
  block(mask: bigint): void {
    for (const tid of this.tids) this.#setMask(tid, mask);
  }

  /**
   * The result of a system call that a thread makes; a negative number is an error. Throws a TraceeError if
   * it cannot make one.
   */
  call(tid: number, number: number, ...values: readonly number[]): number {
    const registers = Buffer.from(this.#saved(tid));
    registers.writeBigUInt64LE(BigInt(number), offsets.result);
    registers.writeBigInt64LE(-1n, offsets.current);
    // No call takes that code away; to look for it takes time in proportion to the areas.
    this.#instruction ??= this.#syscallInstruction();
    registers.writeBigUInt64LE(BigInt(this.#instruction), offsets.instructionPointer);
    for (const [i, offset] of offsets.arguments.entries()) {
      registers.writeBigUInt64LE(BigInt(values[i] ?? 0), offset);
    }
    this.#set(tid, registers);
    // Its beginning, and its end.
    for (let i = 0; i < 2; i++) this.#resumeTo(tid, PTRACE_SYSCALL, ({ kind }) => kind === 'syscall');
    return Number(this.#get(tid).readBigInt64LE(offsets.result));
  }

  /**
   * Puts bytes into the process's memory, calls `use` with their address, and with what reads what is there
   * then, and puts back what was there.
   */
  withBytes<T>(bytes: Uint8Array, use: (address: number, read: () => Buffer) => T): T {
    const address = this.#scratch(bytes.length);
    const memory = openSync(`/proc/${this.pid}/mem`, 'r+');
    try {
      const before = Buffer.alloc(bytes.length);
      readSync(memory, before, 0, before.length, address);
      writeSync(memory, bytes, 0, bytes.length, address);
      try {
        return use(address, () => {
          const now = Buffer.alloc(bytes.length);
          readSync(memory, now, 0, now.length, address);
          return now;
        });
      } finally {
        writeSync(memory, before, 0, before.length, address);
      }
    } finally {
      closeSync(memory);
    }
  }

  /** siginfo_t of the signals that are pending for the process, or for one thread. */
  pending(tid?: number): Buffer[] {
    const request = Buffer.alloc(16);
    request.writeUInt32LE(tid === undefined ? PTRACE_PEEKSIGINFO_SHARED : 0, 8);
    request.writeInt32LE(MAX_PEEKED, 12);
    const found = Buffer.alloc(MAX_PEEKED * SIGINFO_BYTES);
    const count = ptracePeek(PTRACE_PEEKSIGINFO, tid ?? this.pid, request, found);
    this.#must('read the signals of', count);
    return Array.from({ length: count }, (_, i) =>
      found.subarray(i * SIGINFO_BYTES, (i + 1) * SIGINFO_BYTES),
    );
  }

  /** Takes a signal that is pending away, unseen by the process. */
  drop(signal: number): void {
    this.block(ALL_SIGNALS & ~(1n << BigInt(signal - 1)));
    this.#resumeTo(this.pid, PTRACE_CONT, (stop) => stop.kind === 'signal' && stop.signal === signal);
    this.block(ALL_SIGNALS);
  }

  /**
   * Stops the process as a signal does. Its threads stop when they are released, before they run; its parent
   * is told then.
   *
   * @param signal SIGSTOP, or another that the process neither blocks nor handles and that stops it
   */
  stop(signal: number): void {
    if (signal !== SIGSTOP) this.block(ALL_SIGNALS & ~(1n << BigInt(signal - 1)));
    process.kill(this.pid, SIGSTOP);
    this.#resumeTo(this.pid, PTRACE_CONT, (stop) => stop.kind === 'signal' && stop.signal === SIGSTOP);
    this.#must('stop', ptraceNumber(PTRACE_CONT, this.pid, 0, signal));
    const stop = this.#wait(this.pid);
    if (stop.kind !== 'trap' || stop.signal !== signal) this.#fail('stop');
  }

  /** Resumes a thread until it stops as wanted; a SIGSTOP that comes up is kept from it. */
  #resumeTo(tid: number, request: number, isWanted: (stop: Stop) => boolean): void {
    for (;;) {
      this.#must('resume', ptraceNumber(request, tid, 0, 0));
      const stop = this.#wait(tid);
      if (isWanted(stop)) return;
      if (stop.kind === 'trap' || (stop.kind === 'signal' && stop.signal === SIGSTOP)) continue;
      this.#fail('control');
    }
  }

  #wait(tid: number): Stop {
    const status = Buffer.alloc(4);
    const start = performance.now();
    for (;;) {
      const got = waitpid(tid, status, __WALL | WNOHANG);
      this.#must('wait for', got);
      if (got === tid) break;
      if (performance.now() - start > LIMIT_MILLISECONDS)
        throw new TraceeError(`thread ${tid} does not stop`);
      Atomics.wait(sleeper, 0, 0, 1);
    }
    const value = status.readUInt32LE();
    if ((value & 0xff) !== 0x7f) throw new TraceeError(`process ${this.pid} has ended`);
    const signal = (value >>> 8) & 0xff;
    if (value >>> 16 === EVENT_STOP) return { kind: 'trap', signal };
    return { kind: signal === (SIGTRAP | 0x80) ? 'syscall' : 'signal', signal };
  }

  #saved(tid: number): Buffer {
    return this.#registers.get(tid) ?? this.#fail(`find thread ${tid} of`);
  }

  #get(tid: number): Buffer {
    const registers = Buffer.alloc(offsets.bytes);
    this.#must('read the registers of', ptrace(PTRACE_GETREGS, tid, 0, registers));
    return registers;
  }

  #set(tid: number, registers: Buffer): void {
    this.#must('set the registers of', ptrace(PTRACE_SETREGS, tid, 0, registers));
  }

  #mask(tid: number): bigint {
    const mask = Buffer.alloc(8);
    this.#must('read the signal mask of', ptrace(PTRACE_GETSIGMASK, tid, mask.length, mask));
    return mask.readBigUInt64LE();
  }

  #setMask(tid: number, value: bigint): void {
    const mask = Buffer.alloc(8);
    mask.writeBigUInt64LE(value);
    this.#must('set the signal mask of', ptrace(PTRACE_SETSIGMASK, tid, mask.length, mask));
  }

  /** Address of the instruction in some code of the process: of the vDSO, or of its C library. */
  #syscallInstruction(): number {
    const code = areasOf(this.pid).filter(
      ({ access, name }) => access.includes('x') && name !== '[vsyscall]',
    );
    const memory = openSync(`/proc/${this.pid}/mem`, 'r');
    try {
      for (const { start, end } of code.toSorted((a, b) => a.end - a.start - (b.end - b.start))) {
        const bytes = Buffer.alloc(end - start);
        const length = readSync(memory, bytes, 0, bytes.length, start);
        const found = bytes.subarray(0, length).indexOf(systemCalls.instruction);
        if (found >= 0) return start + found;
      }
    } finally {
      closeSync(memory);
    }
    return this.#fail('find a system call of');
  }

  /** Where bytes can be for a moment: private memory that can be written to, of the stack if it is. */
  #scratch(length: number): number {
    const stack = Number(this.#saved(this.pid).readBigUInt64LE(offsets.stackPointer));
    const areas = areasOf(this.pid).filter(
      ({ start, end, access }) => access.startsWith('rw') && access.endsWith('p') && end - start >= length,
    );
    const area = areas.find(({ start, end }) => stack > start && stack <= end) ?? areas[0];
    return area?.start ?? this.#fail('find memory of');
  }

  #must(what: string, result: number): void {
    if (result < 0) this.#fail(what, ` (${errnoText(-result)})`);
  }

  #fail(what: string, why = ''): never {
    throw new TraceeError(`cannot ${what} process ${this.pid}${why}`);
  }
}
