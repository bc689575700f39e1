import { readable } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { pageNumber, translatePage } from '../vmcore/page-table.ts';
import type { PhysicalRange } from '../vmcore/physical.ts';
import { addressOf, pointer, struct, u16, u32 } from '../vmcore/view.ts';

const PAGE = 4096;
/** Pages that one page table maps. */
const TABLE_PAGES = 512;

/** `struct tlb_state`, of each CPU (arch/x86/include/asm/tlbflush.h). */
const tlbState = struct('tlb_state', { loaded_mm: pointer });
/** What `loaded_mm` is while CR3 is being changed. */
const LOADED_MM_SWITCHING = 1n;
const mmPgd = struct('mm_struct', { pgd: pointer });

/** The stacks of a CPU for what may come at any time (arch/x86/include/asm/cpu_entry_area.h). */
const exceptionStacks = struct('cea_exception_stacks', { nmi: addressOf('NMI_stack') });

const cpuInfo = struct('cpuinfo_x86', { initialApicId: u16.at('initial_apicid') });
/** Since 6.7. */
const cpuTopology = struct('cpuinfo_x86', { initialApicId: u32.at('topo.initial_apicid') });

/**
 * A CPU of the dead kernel. Those that did not panic were halted by an NMI, in the kernel's text, on their NMI stack, and with the page tables of whoever ran
 * there (crash_nmi_callback in arch/x86/kernel/reboot.c). They do not sleep for ever: after a system management interrupt a processor executes
 * HLT once more, or goes on behind it, and where there is no text, table or stack any more it shuts down, which resets the machine.
 */
export interface HaltedCpu {
  readonly cpu: number;
  /** As the processor itself says (CPUID). */
  readonly apicId: number;
  /** What must stay as it is until another kernel has started the CPU anew; undefined if that is not known. */
  readonly memory: readonly PhysicalRange[] | undefined;
}

/** The CPUs of the dead kernel, the one that panicked among them; undefined if it cannot be told which there were. */
export function haltedCpus(kernel: Kernel): HaltedCpu[] | undefined {
  return readable(() => {
    const online = new Set(kernel.cpus);
    return kernel.presentCpus.map((cpu) => ({
      cpu,
      apicId: apicId(kernel, cpu),
      memory: readable(() => memoryOf(kernel, cpu, online.has(cpu))),
    }));
  });
}

function apicId(kernel: Kernel, cpu: number): number {
  const decl = kernel.hasMember('cpuinfo_x86', 'topo.initial_apicid') ? cpuTopology : cpuInfo;
  return kernel.bind(decl).at(kernel.perCpu('cpu_info', cpu)).initialApicId;
}

/** @param isOnline a CPU that was taken offline got no NMI */
function memoryOf(kernel: Kernel, cpu: number, isOnline: boolean): PhysicalRange[] | undefined {
  const { loaded_mm: mm } = kernel.bind(tlbState).at(kernel.perCpu('cpu_tlbstate', cpu));
  if (mm === LOADED_MM_SWITCHING) return undefined;
  const table = kernel.memory.userTable(kernel.bind(mmPgd).at(mm).pgd);
  const tables = new Set<number>();
  const [text, end] = [kernel.symbol('_text'), kernel.symbol('_etext')];
  const pages = isOnline ? nmiStackPages(kernel, cpu) : [];
  for (let page = pageNumber(text); page <= pageNumber(end); page += TABLE_PAGES) pages.push(page);
  const frames = pages.flatMap((page) => translatePage(kernel.physical, table, page, tables) ?? []);
  if (frames.length < pages.length) return undefined;
  return [
    { physical: kernel.memory.translate(text), length: Number(end - text) },
    ...[...frames, ...tables].map((physical) => ({ physical, length: PAGE })),
  ];
}

/** The numbers of the pages of a CPU's NMI stack. */
function nmiStackPages(kernel: Kernel, cpu: number): number[] {
  const stacks = kernel.memory.pointer(kernel.perCpu('cea_exception_stacks', cpu));
  const first = pageNumber(kernel.bind(exceptionStacks).at(stacks).nmi);
  const bytes = kernel.layouts.member('cea_exception_stacks', 'NMI_stack')?.sizeBytes ?? 0;
  return Array.from({ length: bytes / PAGE }, (_, index) => first + index);
}
