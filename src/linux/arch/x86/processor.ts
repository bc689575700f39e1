import { addressOf, optional, pointer, struct, u16, u32, u64 } from '../../../vmcore/view.ts';

/** `struct thread_struct` (arch/x86/include/asm/processor.h), `thread` of a task. */
export const threadStruct = struct('thread_struct', {
  /** The kernel stack pointer of a task that is not on a CPU. */
  sp: u64,
  tls: addressOf('tls_array'),
  es: u16,
  ds: u16,
  fsindex: u16,
  gsindex: u16,
  fsbase: u64,
  gsbase: u64,
  ptraceDr7: u64.at('ptrace_dr7'),
  ioBitmap: pointer.at('io_bitmap'),
  ioplEmul: u64.at('iopl_emul'),
  pkru: u32,
  // 6.6, shadow stacks
  features: optional(u64),
  fpu: addressOf('fpu'),
  /** The CPU in whose registers the thread's were last. */
  lastCpu: u32.at('fpu.last_cpu'),
  fpstate: pointer.at('fpu.fpstate'),
  // 5.16; what a process may use of the registers that need a permission, kept with its first thread
  permissions: optional(u64.at('fpu.perm.__state_perm')),
});

/** `struct cpuinfo_x86`. */
export const cpuinfoX86Struct = struct('cpuinfo_x86', {
  // 6.7 gave it another place and size
  initialApicId: u32.at('topo.initial_apicid').or(u16.at('initial_apicid')),
});

/** Slots of set_thread_area in a task (GDT_ENTRY_TLS_ENTRIES). */
export const TLS_ENTRIES = 3;
/** GDT index of the first one on x86-64. */
export const TLS_MIN = 12;
