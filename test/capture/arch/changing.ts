import { captureRegisters, LiveCpus } from '../../../src/capture/arch/index.ts';
import { type Place, placeOf } from '../../../src/capture/place.ts';
import { type RunningTasks, runningTasks } from '../../../src/linux/readers/running-tasks.ts';
import { type Task, taskAt } from '../../../src/linux/sched.ts';
import { type releases, word } from '../../vmcore/fixtures.ts';
import { Computing, GS_BASE, KERNEL_TEXT } from './computing.ts';

const CPU = 1;
/** The segment base and the key rights of the task that the CPU changes to. */
export const NEXT_GS_BASE = 0x7fff_9999_0000n;

/** The CPU of {@link Computing} was changing from its task to another one, which says so, too. */
export class Changing extends Computing {
  readonly next: bigint;

  constructor(release: (typeof releases)[number]) {
    super(release);
    const { kernel } = this;
    this.next = kernel.allocate('task_struct');
    const stack = kernel.physicalToVirtual(kernel.tables.allocate());
    for (let page = 1; page < 4; page++) kernel.tables.allocate();
    const of = (path: string, value: bigint | number): void =>
      kernel.set('task_struct', this.next, path, value);
    of('stack', stack);
    of('pid', 4712);
    of('on_cpu', 1);
    of('thread.fpu.last_cpu', CPU);
    of('thread.gsbase', NEXT_GS_BASE);
    this.set('on_cpu', 1);
    this.set('thread.gsbase', GS_BASE);
    this.set('thread.pkru', 0x5555_5551);
    this.set(kernel.hasMember('task_struct', 'thread_info.cpu') ? 'thread_info.cpu' : 'cpu', CPU);
    const isHot = kernel.hasMember('pcpu_hot', 'current_task');
    if (isHot) kernel.allocatePerCpu('pcpu_hot', 'pcpu_hot');
    else kernel.allocatePerCpu('current_task', 'pt_regs');
    kernel.allocatePerCpu('runqueues', 'rq');
    const idle = kernel.allocate('task_struct');
    kernel.set('task_struct', idle, 'on_cpu', 1);
    for (const [cpu, task] of [idle, this.task].entries()) this.#setCurrent(cpu, task);
    kernel.set('rq', kernel.perCpu('runqueues', 0), 'curr', idle);
    kernel.set('rq', kernel.perCpu('runqueues', CPU), 'curr', this.next);
    this.isOn(this.task);
  }

  #setCurrent(cpu: number, task: bigint): void {
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

  /** The CPU has made the next task its current one, which is what the crash note names. */
  hasChanged(name: string): void {
    this.#setCurrent(CPU, this.next);
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
