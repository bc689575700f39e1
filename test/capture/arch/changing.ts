import { captureRegisters, LiveCpus } from '../../../src/capture/arch/index.ts';
import { type Place, placeOf } from '../../../src/capture/place.ts';
import { type RunningTasks, runningTasks } from '../../../src/linux/readers/running-tasks.ts';
import { type Task, taskAt } from '../../../src/linux/sched.ts';
import { type releases, word } from '../../vmcore/fixtures.ts';
import { makeList } from '../made-processes.ts';
import { Computing, GS_BASE, KERNEL_TEXT } from './computing.ts';

const CPU = 1;
/** The segment base and the key rights of the task that the CPU changes to. */
export const NEXT_GS_BASE = 0x7fff_9999_0000n;

/** The CPU of {@link Computing} was changing from its task to another one, which says so, too. */
export class Changing extends Computing {
  readonly next: bigint;
  /** Of the other CPU, which is in the kernel. */
  readonly idle: bigint;

  constructor(release: (typeof releases)[number]) {
    super(release);
    const { kernel } = this;
    this.next = this.newTask(4712, CPU);
    kernel.set('task_struct', this.next, 'thread.fpu.last_cpu', CPU);
    kernel.set('task_struct', this.next, 'thread.gsbase', NEXT_GS_BASE);
    this.set('thread.gsbase', GS_BASE);
    this.set('thread.pkru', 0x5555_5551);
    this.saysItIsOn(this.task, CPU);
    const isHot = kernel.hasMember('pcpu_hot', 'current_task');
    if (isHot) kernel.allocatePerCpu('pcpu_hot', 'pcpu_hot');
    else kernel.allocatePerCpu('current_task', 'pt_regs');
    kernel.allocatePerCpu('runqueues', 'rq');
    this.idle = this.newTask(0, 0);
    for (const [cpu, task] of [this.idle, this.task].entries()) this.setCurrent(cpu, task);
    this.setQueue(0, this.idle);
    this.setQueue(CPU, this.next);
    kernel.symbols.set('init_task', this.idle);
    this.has([this.task, this.next]);
    this.isOn(this.task);
  }

  /** A task that says that it is on a CPU, with a kernel stack. */
  newTask(pid: number, cpu: number): bigint {
    const { kernel } = this;
    const task = kernel.allocate('task_struct');
    const stack = kernel.physicalToVirtual(kernel.tables.allocate());
    for (let page = 1; page < 4; page++) kernel.tables.allocate();
    kernel.set('task_struct', task, 'stack', stack);
    kernel.set('task_struct', task, 'pid', pid);
    this.saysItIsOn(task, cpu);
    return task;
  }

  saysItIsOn(task: bigint, cpu: number): void {
    const { kernel } = this;
    kernel.set('task_struct', task, 'on_cpu', 1);
    const member = kernel.hasMember('task_struct', 'thread_info.cpu') ? 'thread_info.cpu' : 'cpu';
    kernel.set('task_struct', task, member, cpu);
  }

  /** These are the tasks that there are, each a process. */
  has(tasks: readonly bigint[]): void {
    const { kernel } = this;
    const link = (task: bigint): bigint => kernel.memberAddress('task_struct', task, 'tasks');
    makeList(kernel, link(this.idle), tasks.map(link));
    for (const task of tasks) {
      const signal = kernel.allocate('signal_struct');
      kernel.set('task_struct', task, 'signal', signal);
      const thread = kernel.memberAddress('task_struct', task, 'thread_node');
      makeList(kernel, kernel.memberAddress('signal_struct', signal, 'thread_head'), [thread]);
    }
  }

  setQueue(cpu: number, task: bigint): void {
    this.kernel.set('rq', this.kernel.perCpu('runqueues', cpu), 'curr', task);
  }

  setCurrent(cpu: number, task: bigint): void {
    const { kernel } = this;
    const hot = kernel.symbolMaybe('pcpu_hot');
    if (hot !== undefined) kernel.set('pcpu_hot', kernel.perCpu(hot, cpu), 'current_task', task);
    else kernel.write(kernel.perCpu('current_task', cpu), word(task));
  }

  /** The CPU was in the kernel, on the stack of a task, in a function. */
  isOn(task: bigint, name = 'memcpy'): void {
    const { stack } = taskAt(this.kernel, task);
    this.kernel.text.set(KERNEL_TEXT, name);
    this.note({ cs: 0x10n, ip: KERNEL_TEXT, sp: stack + 0x3000n });
  }

  /** The other CPU was in the kernel, on the stack of a task. */
  otherIsOn(task: bigint): void {
    const { stack, pid } = taskAt(this.kernel, task);
    this.kernel.cpuNotes.unshift({ pid, registers: { cs: 0x10n, ip: KERNEL_TEXT, sp: stack + 0x3000n } });
  }

  /** The CPU computes for its task, and for no other. */
  computes(): void {
    this.note({ cs: 0x33n });
    this.setCurrent(CPU, this.task);
    this.setQueue(CPU, this.task);
    this.kernel.set('task_struct', this.next, 'on_cpu', 0);
  }

  /** The CPU has made the next task its current one, which is what the crash note names. */
  hasChanged(name: string): void {
    this.setCurrent(CPU, this.next);
    this.isOn(this.next, name);
    const [note] = this.kernel.cpuNotes.splice(0);
    this.kernel.cpuNotes.push({ pid: 4712, registers: note?.registers ?? {} });
  }

  get running(): RunningTasks {
    return runningTasks(this.kernel);
  }

  get nextView(): Task {
    return taskAt(this.kernel, this.next);
  }

  placeOf(task: bigint): Place {
    const { kernel, running } = this;
    this.live();
    return placeOf({ kernel, running, liveCpus: new LiveCpus(kernel) }, taskAt(kernel, task));
  }

  /** What a task has, by its place. */
  captureOf(task: bigint): ReturnType<typeof captureRegisters> {
    return captureRegisters(this.kernel, taskAt(this.kernel, task), this.placeOf(task).onCpu);
  }
}
