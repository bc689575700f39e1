import { bpfProg, classicProgram } from '../linux/filter.ts';
import type { Task } from '../linux/sched.ts';
import { seccompFilterStruct, seccompMode } from '../linux/seccomp.ts';
import type { SeccompFilter } from '../model/process.ts';
import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/** MAX_INSNS_PER_PATH of kernel/seccomp.c: a chain has no more instructions than this, and four for each. */
const MAX_FILTERS = 32768 / 5;
const INSTRUCTION_BYTES = 8;
/** BPF_RET of a `struct sock_filter`'s code: the kernel takes no program that does not end with one. */
const CLASS_MASK = 0x07n;
const RETURN = 0x06n;

/** What is known of a thread's filters. */
export interface CapturedSeccomp {
  /** The newest one. */
  readonly filter?: SeccompFilter;
  readonly problem?: string;
}

/** The filters of all threads: those that were inherited are the same object in each. */
export class SeccompFilters {
  readonly #kernel: Kernel;
  readonly #known = new Map<bigint, SeccompFilter>();

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** Throws a VmcoreError if a filter cannot be read, or is none that the kernel would have taken. */
  of(task: Pick<Task, 'seccompMode' | 'seccompFilter'>): CapturedSeccomp {
    if (task.seccompMode === seccompMode.disabled) return {};
    if (task.seccompMode !== seccompMode.filter) return { problem: 'has a seccomp mode' };
    const chain = this.#chain(task.seccompFilter);
    if (chain.length === 0) return { problem: 'has a seccomp filter that is not there' };
    if (chain.some(({ notif }) => notif !== 0n)) {
      return { problem: 'has a seccomp filter that asks another process (SECCOMP_RET_USER_NOTIF)' };
    }
    let previous: SeccompFilter | undefined;
    for (const view of chain.toReversed()) previous = this.#filter(view, previous);
    return previous === undefined ? {} : { filter: previous };
  }

  #chain(newest: bigint) {
    const Filter = this.#kernel.bind(seccompFilterStruct);
    const chain: ReturnType<typeof Filter.at>[] = [];
    for (let address = newest; address !== 0n; ) {
      if (chain.length > MAX_FILTERS) throw new ContainerError('seccomp_filter', newest, 'has no end');
      const view = Filter.at(address);
      chain.push(view);
      address = view.prev;
    }
    return chain;
  }

  #filter(
    view: { readonly address: bigint; readonly prog: bigint; readonly log: boolean },
    previous: SeccompFilter | undefined,
  ): SeccompFilter {
    const known = this.#known.get(view.address);
    if (known !== undefined) return known;
    const instructions = classicProgram(this.#kernel, this.#kernel.bind(bpfProg).at(view.prog).orig_prog);
    if (instructions === undefined || ((instructions.at(-1) ?? 0n) & CLASS_MASK) !== RETURN)
      throw new ContainerError('seccomp_filter', view.address, 'has no program that ends with a result');
    const program = Buffer.alloc(instructions.length * INSTRUCTION_BYTES);
    for (const [i, instruction] of instructions.entries())
      program.writeBigUInt64LE(instruction, i * INSTRUCTION_BYTES);
    const filter: SeccompFilter = { program, isLogged: view.log, previous };
    this.#known.set(view.address, filter);
    return filter;
  }
}
