// Boots one bare guest in which threads give a CPU to one another all the time, and has that CPU execute the
// kernel's change from one to the other, one instruction after the other. At each of them the kernel is
// looked at as if it had died there, and what is said of both threads is compared with what they had in user
// mode.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { withDebugger } from '../../lab/debugger.ts';
import type { GdbRemote } from '../../lab/gdb-remote.ts';
import { FXSAVE, XFEATURE } from '../../src/arch/x86-64/xstate.ts';
import { captureRegisters, LiveCpus } from '../../src/capture/arch/index.ts';
import { captureProcesses } from '../../src/capture/index.ts';
import { placeOf } from '../../src/capture/place.ts';
import { apicIdOf } from '../../src/linux/arch/index.ts';
import { standardOffsets } from '../../src/linux/arch/x86/fpu.ts';
import { currentTask } from '../../src/linux/current.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { kernelStack } from '../../src/linux/readers/kernel-stack.ts';
import { runningTasks, switchOf } from '../../src/linux/readers/running-tasks.ts';
import { rqStruct, type Task, taskAt } from '../../src/linux/sched.ts';
import type { DeadKernel } from '../../src/vmcore/dead-kernel.ts';
import type { CpuNote } from '../../src/vmcore/elf-notes.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openFile } from '../../src/vmcore/mapping.ts';
import { kernelFrom, openKernel, openSource } from '../../src/vmcore/open.ts';
import { MadeArea, madeInputs } from '../stage-zero/made-area.ts';
import { bootTestGuest, isWhole, release, scratchDirectory, type TestGuest } from './harness.ts';
import { LivingMemory } from './living-memory.ts';

const CPUS = 2;
const CPU = CPUS - 1;
/** The number of the thread that computes. */
const COMPUTING = 3n;
/** Changes that are followed: of threads in a system call, and of the one that was interrupted. */
const wanted: ReadonlyMap<string, number> = new Map([
  ['calls to calls', 2],
  ['calls to computes', 1],
  ['computes to calls', 1],
]);
/**
 * Of threads in a system call as many are followed from where the scheduler begins, whoever comes next; all
 * others from where it has decided.
 */
const FROM_THE_BEGINNING = 2;
/** Stops of this CPU in the scheduler until all of them were there: it chooses who is next. */
const MOST_STOPS = 4000;
/** What a CPU has of a thread at some instruction of these changes. */
const PARTS = ['on', 'saved', 'leaving', 'entering'];
/** It changes its segment bases and key rights itself. */
const OF_THE_PROGRAM = /its code has WR[FG]SBASE|rights to memory protection keys/;
/** A change takes a few hundred instructions, finding out which task is next some thousand. */
const MOST_STEPS = 20_000;
/** Beyond the guest's memory: what stage zero would have left. */
const AREA = 2 ** 34;
const XSTATE_BV = 512;

type Registers = Readonly<Record<string, bigint>>;

/** A change of the CPU, as far as it was looked at. */
interface Change {
  readonly from: number;
  readonly to: number;
  /** Instructions at which a thread had a part in it. */
  looks: number;
}

suite(`a CPU that changes from one task to another with ${release}`, { skip: !isWhole }, () => {
  let guest: TestGuest;
  const scratch = scratchDirectory();
  const dump = join(scratch.path, 'dump');
  /** What each thread has in its registers, by TID. */
  let numbers: ReadonlyMap<number, bigint>;

  before(async () => {
    guest = await bootTestGuest('task-switch', { cpus: CPUS, install: false });
    await guest.program('switching');
    await guest.background('exec switching >/srv/switching 2>&1');
    await guest.until('grep -q ready /srv/switching', 120);
    const lines = (await guest.sh('grep -v ready /srv/switching')).split('\n');
    numbers = new Map(lines.map((line) => [Number(line.split(' ')[0]), BigInt(line.split(' ')[1] ?? 0)]));
  });
  after(async () => {
    scratch.remove();
    await guest?.down();
  });

  test('leaves both with all that they had, at every instruction', async (t) => {
    const host = Number(/is (0x[0-9a-f]+)/.exec(await guest.monitor('gpa2hva 0'))?.[1]);
    const seen = new Map<string, number>();
    const wrong: string[] = [];
    const followed = new Map<string, number>();
    const kindOf = (pid: number): string => {
      const number = numbers.get(pid);
      return number === undefined ? 'is another' : number === COMPUTING ? 'computes' : 'calls';
    };
    let begun = 0;
    let stops = 0;
    /** Whether the change that begins here may be of a kind of which more are wanted. */
    const isWanted = async (remote: GdbRemote, look: Look): Promise<boolean> => {
      const { ip = 0n, si = 0n } = await remote.registers(CPU);
      const kernel = look.fresh();
      const from = kindOf(taskAt(kernel, currentTask(kernel, CPU)).pid);
      const isDecided = kernel.symbolAt(ip)?.name === '__switch_to_asm';
      if (!isDecided && from === 'calls') return begun++ < FROM_THE_BEGINNING;
      const kind = `${from} to ${isDecided ? kindOf(taskAt(kernel, si).pid) : 'calls'}`;
      return (followed.get(kind) ?? 0) < (wanted.get(kind) ?? 0);
    };
    await guest.vmcore(dump);
    const look = new Look(guest.name, dump, host);
    await withDebugger(guest.name, async (remote) => {
      const kernel = look.fresh();
      const places = ['__schedule', '__switch_to_asm'].map((name) => kernel.symbol(name));
      while ([...wanted].some(([kind, times]) => (followed.get(kind) ?? 0) < times)) {
        for (const place of places) await remote.breakAt(place, true);
        const cpu = await remote.resume();
        if (cpu === CPU) stops++;
        assert.ok(stops < MOST_STOPS, `of the changes there were ${[...followed].join('; ')}`);
        for (const place of places) await remote.breakAt(place, false);
        if (cpu !== CPU || !(await isWanted(remote, look))) {
          await remote.step(cpu);
          continue;
        }
        const change = await follow(remote, look, numbers, seen, wrong);
        if (change === undefined) continue;
        const kind = `${kindOf(change.from)} to ${kindOf(change.to)}`;
        followed.set(kind, (followed.get(kind) ?? 0) + 1);
        t.diagnostic(`${change.looks} looks at a change from what ${kind}`);
      }
    });
    look.close();
    for (const [what, times] of seen) t.diagnostic(`${times} times: ${what}`);
    const parts = new Set([...seen.keys()].map((what) => what.split(' ')[0]));
    assert.deepEqual([PARTS.filter((part) => !parts.has(part)), wrong.slice(0, 20)], [[], []]);
    assert.deepEqual(
      [...seen.keys()].filter((what) => what.includes('refused: ')),
      [],
    );
  });
});

/** The guest's kernel, as it is after each instruction. */
class Look {
  readonly #memory: LivingMemory;
  readonly #kernel: DeadKernel;
  readonly #notes: CpuNote[];
  readonly #area: MadeArea;
  #pkru = 0;

  constructor(name: string, dump: string, host: number) {
    const file = openFile(dump);
    const source = openSource(file);
    this.#notes = [...source.cpuNotes];
    const plain = openKernel(dump);
    const bootId = plain.memory.read(plain.symbol('sysctl_bootid'), 16);
    plain.close();
    this.#area = new MadeArea(madeInputs({ address: AREA, bootId }));
    const beside = { address: AREA, bytes: this.#area.bytes };
    this.#memory = new LivingMemory(name, host, source.physical.ranges, beside);
    const notes = [...source.notes, ...this.#area.notes];
    const parts = { ...source, physical: this.#memory, cpuNotes: this.#notes, notes };
    this.#kernel = kernelFrom({ path: dump, close: () => file.close() }, parts);
  }

  /** The same kernel each time: what is remembered of it never changes. */
  fresh(): Kernel {
    this.#memory.forget();
    return this.#kernel;
  }

  /** The key rights that the CPU has. */
  set pkru(value: number) {
    this.#pkru = value;
  }

  /** The kernel as it would be if it had died here. */
  async dead(remote: GdbRemote, registers: Registers): Promise<Kernel> {
    const kernel = this.fresh();
    this.#notes[kernel.cpus.indexOf(CPU)] = { pid: 0, registers };
    const { fxsave, kernelGsBase } = await remote.vectors(CPU);
    const offset = standardOffsets(kernel)[XFEATURE.pkru] ?? 0;
    const xsave = Buffer.alloc(offset + 8);
    fxsave.copy(xsave);
    xsave.writeBigUInt64LE(3n | (1n << BigInt(XFEATURE.pkru)), XSTATE_BV);
    xsave.writeUInt32LE(this.#pkru, offset);
    this.#area.save(apicIdOf(kernel, CPU), xsave, { kernelGsBase });
    this.#area.finish();
    return kernel;
  }

  close(): void {
    this.#kernel.close();
  }
}

/** Follows the CPU until the task that it leaves does not say any more that it is on it. */
async function follow(
  remote: GdbRemote,
  look: Look,
  numbers: ReadonlyMap<number, bigint>,
  seen: Map<string, number>,
  wrong: string[],
): Promise<Change | undefined> {
  const kernel = look.fresh();
  const previous = currentTask(kernel, CPU);
  const from = taskAt(kernel, previous).pid;
  look.pkru = rightsOf(kernel, from);
  const { sp = 0n, ip: begin = 0n } = await remote.registers(CPU);
  const isFromEntry = kernel.symbolAt(begin)?.name === '__schedule';
  const returns = isFromEntry ? kernel.memory.u64(sp) : undefined;
  let change: Change | undefined;
  for (let step = 0; step < MOST_STEPS; step++) {
    const now = look.fresh();
    const registers = await remote.registers(CPU);
    const { ip = 0n, ax = 0n } = registers;
    const code = now.memory.read(ip, 3).toString('hex');
    const next = now.bind(rqStruct).at(now.perCpu('runqueues', CPU)).curr;
    if (next !== previous) {
      change ??= { from, to: taskAt(now, next).pid, looks: 0 };
      if (taskAt(now, previous).on_cpu === 0) return change;
      change.looks++;
      const dead = await look.dead(remote, registers);
      for (const task of [previous, next])
        if (numbers.has(taskAt(dead, task).pid)) compare(dead, taskAt(dead, task), ip, numbers, seen, wrong);
    }
    await remote.step(CPU);
    if (code === '0f01ef') look.pkru = Number(ax & 0xffff_ffffn);
    // It goes on with the same task.
    if (ip === returns) return change;
  }
  return change;
}

/** The rights that a thread had in user mode. */
function rightsOf(kernel: Kernel, pid: number): number {
  const task = taskAt(kernel, findTaskByPid(kernel, pid) ?? 0n);
  const { registers } = captureRegisters(kernel, task, undefined);
  return Number((registers.r12 << 4n) & 0xffff_ffffn);
}

/** Why a process would not come back, but for what the program does all the time. */
function reasonsOf(kernel: Kernel, { tgid }: Task): string[] {
  const { refused } = captureProcesses(kernel, { roots: [tgid], includeDescendants: false });
  return refused.flatMap(({ reasons }) => reasons).filter((reason) => !OF_THE_PROGRAM.test(reason));
}

function compare(
  kernel: Kernel,
  task: Task,
  ip: bigint,
  numbers: ReadonlyMap<number, bigint>,
  seen: Map<string, number>,
  wrong: string[],
): void {
  const running = runningTasks(kernel);
  const part = switchOf(kernel, running, task)?.part ?? (running.cpuOf.has(task.address) ? 'on' : 'off');
  const symbol = kernel.symbolAt(ip);
  const count = (what: string): unknown => seen.set(what, (seen.get(what) ?? 0) + 1);
  const where = `${part} in ${symbol?.name}`;
  const say = (what: string): unknown => {
    count(`${where}: ${what}`);
    return wrong.push(`${numbers.get(task.pid)} ${where}+0x${symbol?.offset.toString(16)}: ${what}`);
  };
  const stack = kernelStack(kernel, task, running.cpuOf.get(task.address));
  if (stack.end !== 'user') say(`its stack: ${stack.why}`);
  const { onCpu, lost } = placeOf({ kernel, running, liveCpus: new LiveCpus(kernel) }, task);
  if (lost !== undefined) return void say(lost);
  const found = captureRegisters(kernel, task, onCpu);
  const problems = [...found.problems, ...found.problemsOfState, ...found.problemsOfValues];
  // The threads change their key rights all the time.
  if (problems.length === 1 && /rights to memory protection keys/.test(problems[0] ?? ''))
    return void count(`${where}: ${problems[0]}`);
  problems.forEach(say);
  const told = `${where}, older: ${found.olderBases.join(' ')}`;
  // The whole process is looked at once in each of such places.
  if (!seen.has(told)) for (const reason of reasonsOf(kernel, task)) count(`${where}: refused: ${reason}`);
  count(told);
  const number = numbers.get(task.pid);
  const { registers, fpu } = found;
  for (const name of ['bx', 'bp', 'si', 'di', 'r8', 'r9', 'r10', 'r14', 'r15'] as const)
    if (registers[name] !== number) say(`${name} is ${registers[name]}`);
  const base = registers.r12;
  if (registers.gsBase !== base && !found.olderBases.includes('gs')) say(`GS base ${registers.gsBase}`);
  if (registers.fsBase !== (base | (1n << 32n)) && !found.olderBases.includes('fs'))
    say(`FS base ${registers.fsBase}`);
  const fxsave = Buffer.from(fpu.fxsave);
  const xmm = (at: number): bigint => fxsave.readBigUInt64LE(160 + at * 16);
  if (xmm(0) !== base) say(`XMM0 is ${xmm(0)}, R12 is ${base}`);
  for (const at of [1, 7, 15]) if (xmm(at) !== number) say(`XMM${at} is ${xmm(at)}`);
  if (fxsave.readUInt32LE(FXSAVE.mxcsr) !== FXSAVE.initialMxcsr) say('MXCSR');
  const keys = fpu.components.find((component) => component.number === XFEATURE.pkru);
  if (keys === undefined) return;
  const rights = Buffer.from(keys.data).readUInt32LE(0);
  if (rights !== Number((base << 4n) & 0xffff_ffffn)) say(`PKRU ${rights}`);
}
