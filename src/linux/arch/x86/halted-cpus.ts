import { PAGE_SIZE } from '../../../system/page.ts';
import { BindError, readable } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import { pageNumber, translateKernelPage } from '../../../vmcore/page-table.ts';
import type { PhysicalRange } from '../../../vmcore/physical.ts';
import { currentTask } from '../../current.ts';
import { mmStruct } from '../../mm-types.ts';
import { taskAt } from '../../sched.ts';
import { ceaExceptionStacksStruct } from './cpu-entry-area.ts';
import { cpuinfoX86Struct } from './processor.ts';
import { threadSize } from './ptrace.ts';
import { tlbStateStruct } from './tlbflush.ts';

/** Pages that one page table maps. */
const TABLE_PAGES = 512;

/** What `tlb_state.loaded_mm` is while CR3 is being changed. */
const LOADED_MM_SWITCHING = 1n;

/**
 * A CPU of the dead kernel. Those that did not panic were halted by an NMI, in the kernel's text and with the
 * page tables of whoever ran there (crash_nmi_callback in arch/x86/kernel/reboot.c): on the stack of NMIs
 * where that was the kernel, on the task's where it was user mode. One that was offline waits in
 * mwait_play_dead for a write to its own variable, or halts. None of them sleeps for ever: after a system
 * management interrupt a processor executes HLT once more or goes on behind it, and where there is no text,
 * table or stack any more it shuts down, which resets the machine.
 */
export interface HaltedCpu {
  readonly cpu: number;
  /** As the processor itself says (CPUID). */
  readonly apicId: number;
  /**
   * What must stay as it is until another kernel has started the CPU anew; undefined if that is not known.
   */
  readonly memory: readonly PhysicalRange[] | undefined;
}

/**
 * The CPUs of the dead kernel, the one that panicked among them; undefined if it cannot be told which there
 * were.
 */
export function haltedCpus(kernel: Kernel): HaltedCpu[] | undefined {
  return readable(() =>
    kernel.presentCpus.map((cpu) => ({
      cpu,
      apicId: apicIdOf(kernel, cpu),
      memory: readable(() => memoryOf(kernel, cpu)),
    })),
  );
}

/** The id of a CPU's local APIC, as the processor itself says (CPUID). */
export function apicIdOf(kernel: Kernel, cpu: number): number {
  return kernel.bind(cpuinfoX86Struct).at(kernel.perCpu('cpu_info', cpu)).initialApicId;
}

function memoryOf(kernel: Kernel, cpu: number): PhysicalRange[] | undefined {
  const { loaded_mm: mm } = kernel.bind(tlbStateStruct).at(kernel.perCpu('cpu_tlbstate', cpu));
  if (mm === LOADED_MM_SWITCHING) return undefined;
  const table = kernel.memory.userTable(kernel.bind(mmStruct).at(mm).pgd);
  const [text, end] = [kernel.symbol('_text'), kernel.symbol('_etext')];
  const pages = [...stackPages(kernel, cpu), ...mwaitPage(kernel, cpu)];
  for (let page = pageNumber(text); page <= pageNumber(end); page += TABLE_PAGES) pages.push(page);
  const tables = new Set<number>();
  const frames = pages.flatMap((page) => translateKernelPage(kernel.physical, table, page, tables) ?? []);
  if (frames.length < pages.length) return undefined;
  return [
    { physical: kernel.memory.translate(text), length: Number(end - text) },
    ...[...frames, ...tables].map((physical) => ({ physical, length: PAGE_SIZE })),
  ];
}

/** The numbers of the pages of both stacks that a CPU may be halted on. */
function stackPages(kernel: Kernel, cpu: number): number[] {
  const stacks = kernel.memory.pointer(kernel.perCpu('cea_exception_stacks', cpu));
  const { nmi } = kernel.bind(ceaExceptionStacksStruct).at(stacks);
  const { stack } = taskAt(kernel, currentTask(kernel, cpu));
  return [
    ...pagesOf(nmi, memberSize(kernel, 'cea_exception_stacks', 'NMI_stack')),
    ...pagesOf(stack, threadSize(kernel)),
  ];
}

/** Kernels from 6.1 on (and updates of older ones) write there to end an offline CPU's wait. */
function mwaitPage(kernel: Kernel, cpu: number): number[] {
  const variable = kernel.symbolMaybe('mwait_cpu_dead');
  return variable === undefined ? [] : [pageNumber(kernel.perCpu(variable, cpu))];
}

function memberSize(kernel: Kernel, structure: string, member: string): number {
  const layout = kernel.layouts.member(structure, member);
  if (layout === undefined) throw new BindError(structure, member, kernel.release, 'does not exist');
  return layout.sizeBytes;
}

/** Page numbers from a page-aligned address on. */
function pagesOf(address: bigint, bytes: number): number[] {
  return Array.from({ length: bytes / PAGE_SIZE }, (_, index) => pageNumber(address) + index);
}
