import { CaptureContext } from '../../src/capture/files/context.ts';
import type { MadeKernel } from '../vmcore/made-kernel.ts';

interface MadeProcess {
  readonly task: bigint;
  readonly signal: bigint;
  /** Address of its `struct pid`. */
  readonly pid: bigint;
  readonly threads: bigint[];
}

/** Makes a circular list of these nodes at an address. */
export function makeList(kernel: MadeKernel, head: bigint, nodes: readonly bigint[] = []): void {
  const all = [head, ...nodes];
  all.forEach((node, i) => {
    const next = all[(i + 1) % all.length] ?? head;
    kernel.set('list_head', node, 'next', next);
    kernel.set('list_head', next, 'prev', node);
  });
}

/** Processes of one thread each in a kernel made by hand, with numbers. */
export class MadeProcesses {
  readonly #kernel: MadeKernel;
  readonly #byPid = new Map<number, MadeProcess>();

  constructor(kernel: MadeKernel, pids: readonly number[]) {
    this.#kernel = kernel;
    const types = ['PIDTYPE_PID', 'PIDTYPE_TGID', 'PIDTYPE_PGID', 'PIDTYPE_SID'];
    for (const [i, type] of types.entries()) kernel.enumerators.set(type, i);
    for (const pid of pids) this.#add(pid);
  }

  #add(number: number): void {
    const kernel = this.#kernel;
    const signal = kernel.allocate('signal_struct');
    const pid = this.#number(number);
    kernel.set('signal_struct', signal, 'pids[1]', pid);
    const process: MadeProcess = { task: kernel.allocate('task_struct'), signal, pid, threads: [] };
    this.#byPid.set(number, process);
    this.#join(process, process.task, number, pid);
  }

  #number(number: number): bigint {
    const pid = this.#kernel.allocate('pid');
    this.#kernel.set('pid', pid, 'numbers[0].nr', number);
    return pid;
  }

  #join(process: MadeProcess, task: bigint, number: number, pid: bigint): void {
    const kernel = this.#kernel;
    process.threads.push(task);
    const [leader = task] = process.threads;
    const tgid = number;
    const members = { pid: number, tgid, thread_pid: pid, signal: process.signal, group_leader: leader };
    for (const [name, value] of Object.entries(members)) kernel.set('task_struct', task, name, value);
    const link = kernel.memberAddress('task_struct', task, 'pid_links[0]');
    kernel.set('pid', pid, 'tasks[0].first', link);
    const nodes = process.threads.map((at) => kernel.memberAddress('task_struct', at, 'thread_node'));
    makeList(kernel, kernel.memberAddress('signal_struct', process.signal, 'thread_head'), nodes);
  }

  /** One more thread of a process: its task. */
  addThread(pid: number, tid: number): bigint {
    const task = this.#kernel.allocate('task_struct');
    this.#join(this.#of(pid), task, tid, this.#number(tid));
    return task;
  }

  #of(pid: number): MadeProcess {
    const found = this.#byPid.get(pid);
    if (found === undefined) throw new Error(`no process ${pid} was made`);
    return found;
  }

  taskOf(pid: number): bigint {
    return this.#of(pid).task;
  }

  pidOf(pid: number): bigint {
    return this.#of(pid).pid;
  }

  /** What a capture of some of them starts with. */
  context(protectedPids: readonly number[]): CaptureContext {
    const all = [...this.#byPid].map(([pid, { task }]) => ({ pid, task, filesId: pid }));
    const list = { tasks: all.map(({ task }) => task), lost: [], damage: [], isComplete: true };
    const clocks = { monotonic: 0n, realtime: 0n, boottime: 0n, tai: 0n };
    const own = all.filter(({ pid }) => protectedPids.includes(pid));
    return new CaptureContext(this.#kernel, clocks, own, list);
  }
}
