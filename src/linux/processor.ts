import { addressOf, optional, pointer, struct, u16, u32, u64, type ViewOf } from '../vmcore/view.ts';

/** `struct thread_struct` inside task_struct (arch/x86/include/asm/processor.h). */
export const threadStruct = struct('task_struct', {
  tls: addressOf('thread.tls_array'),
  es: u16.at('thread.es'),
  ds: u16.at('thread.ds'),
  fsindex: u16.at('thread.fsindex'),
  gsindex: u16.at('thread.gsindex'),
  fsbase: u64.at('thread.fsbase'),
  gsbase: u64.at('thread.gsbase'),
  ptraceDr7: u64.at('thread.ptrace_dr7'),
  ioBitmap: pointer.at('thread.io_bitmap'),
  ioplEmul: u64.at('thread.iopl_emul'),
  pkru: u32.at('thread.pkru'),
  // 6.6, shadow stacks
  features: optional(u64.at('thread.features')),
  fpstate: pointer.at('thread.fpu.fpstate'),
  // 5.16; what a process may use of the registers that need a permission, kept with its first thread
  permissions: optional(u64.at('thread.fpu.perm.__state_perm')),
});

export type ThreadStruct = ViewOf<typeof threadStruct>;

/** Slots of set_thread_area in a task (GDT_ENTRY_TLS_ENTRIES). */
export const TLS_ENTRIES = 3;
/** GDT index of the first one on x86-64. */
export const TLS_MIN = 12;
