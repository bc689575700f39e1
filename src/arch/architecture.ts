import type { FpuState, GeneralRegisters, UserRegisters } from './x86-64/user-registers.ts';

/**
 * What has to be known of a processor architecture. To add one:
 *
 * 1. `src/arch/NAME/`: an {@link Architecture}, named in the list of `src/arch/index.ts`. It is data and
 *    small functions over numbers and bytes, knows no kernel structure, and imports nothing of `src/` but
 *    this file and `src/system`.
 *    - `pageTable`: the format of a page table entry. Tables have entries of 8 bytes and pages of 4 KiB, as
 *      x86-64's and arm64's have.
 *    - `kernelSpace`: where kernel addresses are, and which are mapped by arithmetic.
 *    - `notes`: registers in NT_PRSTATUS, in the order of `struct user_regs_struct`.
 *    - `systemCalls`, `ptraceRegisters`: numbers, and how a thread makes a call, makes it again or is given
 *      its result.
 *    - `stack`: what of it is in use.
 *    - `programStart`: the first registers of a program, and of a function that is called.
 *    - `signalFrame`: what rt_sigreturn(2) takes a thread's context from.
 * 2. `src/linux/arch/NAME/`: what the kernel's own headers of that architecture declare (`struct pt_regs`,
 *    `struct thread_struct`, the vector state, what a halted processor still needs).
 * 3. `src/criu/images/`: the architecture's part of CRIU's core image; `src/criu/restore/`: the registers
 *    that ptrace(2) sets.
 * 4. `src/kexec/`: the format of kernel images, what a kernel is told when it is entered, and the memory map.
 * 5. `src/arm/`: the console and the processor options of a crash kernel's command line.
 */
export interface Architecture {
  /** For messages: `x86-64`. */
  readonly name: string;
  /** As `uname -m` says it: `x86_64`. */
  readonly unameMachine: string;
  /** `e_machine` of its ELF files. */
  readonly elfMachine: number;
  readonly pageTable: PageTableFormat;
  readonly kernelSpace: KernelSpace;
  readonly notes: NoteFormat;
  readonly systemCalls: SystemCalls;
  readonly stack: StackRules;
  readonly ptraceRegisters: PtraceRegisters;
  readonly signalFrame: SignalFrameFormat;
  readonly programStart: ProgramStart;
}

/** A thread's registers, all of them. */
export interface ThreadRegisters {
  readonly registers: UserRegisters;
  readonly fpu: FpuState;
}

/** How programs and functions start. */
export interface ProgramStart {
  /** Machine code of a program that ends at once, with status 0. It may lie anywhere. */
  readonly exit: Uint8Array;
  /** Registers of a program that starts at an address, with the stack pointer there. */
  start(ip: number, sp: number): ThreadRegisters;
  /**
   * Registers of a thread that was just called with one argument: its thread pointer and its rights to memory
   * stay.
   */
  call(thread: ThreadRegisters, entry: number, argument: bigint, sp: number): ThreadRegisters;
  /**
   * Registers of a thread whose next instruction, the system call at `ip`, ends its process with a status. It
   * has no stack: if that were not to end it, whatever comes next faults.
   */
  end(thread: ThreadRegisters, ip: number, status: number): ThreadRegisters;
  /** The thread runs the architecture's own code, not that of a predecessor. */
  isNative(registers: UserRegisters): boolean;
  /** A thread's rights to memory protection keys, two bits for each (pkeys(7)); 0 where there are no keys. */
  keyRights(fpu: FpuState): number;
}

/** What of a thread is in a signal frame. */
export interface SignalContext {
  readonly registers: UserRegisters;
  readonly fpu: FpuState;
  readonly blockedSignals: bigint;
  readonly altStack: { readonly sp: bigint; readonly sizeBytes: bigint; readonly flags: number };
}

/** A signal frame as it lies on a stack. */
export interface SignalFrame {
  /** User address: the stack pointer with which the procedure starts; the return address is there. */
  readonly address: number;
  /** From `address` to the end of the vector state. */
  readonly bytes: Uint8Array;
}

/**
 * The frame from which rt_sigreturn(2) puts a thread back where it was: registers, vector state, blocked
 * signals, alternate stack.
 */
export interface SignalFrameFormat {
  /** What a return takes off the stack. */
  readonly returnAddressBytes: number;
  /** Code that only calls rt_sigreturn(2), and where in it the system call is (bytes); longest first. */
  readonly restorers: readonly { readonly code: Uint8Array; readonly systemCall: number }[];
  /**
   * @param top end of the stack that the frame is put on (exclusive)
   * @param restorer user address that the frame's return address names
   * @param stateOffsets where each component of the thread's vector state belongs, by its number
   */
  build(thread: SignalContext, top: number, restorer: number, stateOffsets: readonly number[]): SignalFrame;
}

/** Byte offsets in what PTRACE_GETREGS gives. */
export interface PtraceRegisters {
  /** Size of the whole. */
  readonly bytes: number;
  /** Number of a call that is to be made, and its result. */
  readonly result: number;
  /** Number of the call that the thread is in; -1 if it is in none. */
  readonly current: number;
  readonly arguments: readonly number[];
  readonly instructionPointer: number;
  readonly stackPointer: number;
}

/**
 * How programs make system calls. Registers are those of a thread that has entered the kernel.
 */
export interface SystemCalls {
  /** The instruction. */
  readonly instruction: Uint8Array;
  /** Name of a call; `syscall NUMBER` for one that is not known. */
  name(number: number): string;
  number(name: string): number | undefined;
  /** Number of the call that a thread is in; -1 if it is in none. */
  current(registers: GeneralRegisters): number;
  /** All six arguments. */
  arguments(registers: GeneralRegisters): readonly bigint[];
  withArgument(registers: UserRegisters, index: number, value: bigint): UserRegisters;
  /** What the call has returned so far, signed. */
  result(registers: GeneralRegisters): bigint;
  /** As if the thread had made another call with the same arguments. */
  asCall(registers: UserRegisters, number: number): UserRegisters;
  /** The thread makes its call again. */
  again(registers: UserRegisters): UserRegisters;
  /** The call is over and has returned a value. */
  returning(registers: UserRegisters, value: bigint): UserRegisters;
  /** The registers themselves say that the thread goes on behind the instruction. */
  isBehindCall(registers: Pick<UserRegisters, 'ip' | 'cx' | 'flags' | 'r11'>): boolean;
  /**
   * The instruction that would be restart_syscall(2), with these registers, if it is the next one: what that
   * goes on with, only the kernel knew. `isCertain`: other registers say that it is. Undefined if none would.
   */
  restartAhead(
    registers: Pick<UserRegisters, 'ip' | 'ax' | 'cx'>,
  ): { readonly instruction: Buffer; readonly isCertain: boolean } | undefined;
}

/** The stack of a program (the architecture's System V ABI). */
export interface StackRules {
  /** Bytes below the stack pointer that belong to the running function. */
  readonly redZoneBytes: number;
  pointer(registers: UserRegisters): bigint;
}

/**
 * Entries of a page table, as two words of 32 bits. Levels count from 1, the table whose entries map single
 * pages.
 */
export interface PageTableFormat {
  /** Entries of a table, at every level. */
  readonly entries: number;
  /** Pages that one entry covers, by level; the first number is of no level. */
  readonly pagesPerEntry: readonly number[];
  /** Highest level at which an entry may map memory itself: a huge page. */
  readonly largestPageLevel: number;
  /** The entry leads to a table of the level below. */
  isTable(low: number, level: number): boolean;
  /** The processor would use the entry. */
  isValid(low: number): boolean;
  /** The entry has a frame, whether the processor may use it now or not: pte_present(), pmd_present(). */
  isPresent(low: number, level: number): boolean;
  /** Physical address in an entry that is present. */
  frame(low: number, high: number): number;
  /**
   * Two entries that are present have the same flags, but for those that the processor sets as memory is
   * used.
   */
  isAlike(low: number, high: number, otherLow: number, otherHigh: number): boolean;
  /** Number of the swap area in an entry that is neither empty nor present. */
  swapType(high: number): number;
  /**
   * Slot in the swap area, in pages; undefined if the entry has bits set that no swap entry has. Below 2^50.
   */
  swapSlot(low: number, high: number): number | undefined;
}

/** Paging structures: where the top table is, and how many levels. */
export interface PageTable {
  readonly format: PageTableFormat;
  /** Physical address of the top-level table. */
  readonly root: number;
  readonly levels: number;
}

/** A range of kernel addresses that is mapped with one offset: the kernel image, the direct map. */
export interface LinearRange {
  readonly start: bigint;
  readonly end: bigint;
  /** Physical address of `start`. */
  readonly physical: number;
}

/** How kernel addresses become physical ones. */
export interface KernelAddressSpace {
  readonly table: PageTable;
  /** Lowest address of the kernel's half. */
  readonly start: bigint;
  /** Tried in this order, before the page tables. */
  readonly linear: readonly LinearRange[];
}

/** What VMCOREINFO says, by its lines `NUMBER(name)=` and `SYMBOL(name)=`. */
export interface KernelNumbers {
  number(name: string): number | undefined;
  symbol(name: string): bigint | undefined;
}

/** A base address that the kernel chose at boot. */
export interface BaseAddress {
  /** The kernel's variable that has it; kernels that do not choose have none. */
  readonly variable: string;
  /** Without the variable. */
  readonly fixed: bigint;
}

/** Where a kernel has its memory. */
export interface KernelSpace {
  /** Lowest address of the kernel's half, whatever the number of levels. */
  readonly start: bigint;
  /** Where the kernel image is linked to run without being moved. */
  readonly imageStart: bigint;
  /**
   * The first translation, from VMCOREINFO alone; a sentence if that lacks what it takes, or if memory cannot
   * be read.
   */
  initial(info: KernelNumbers): KernelAddressSpace | string;
  /** The direct map and vmemmap, with page tables of so many levels. */
  bases(levels: number): { readonly directMap: BaseAddress; readonly vmemmap: BaseAddress };
  /** Both are multiples of this. */
  readonly baseAlignment: bigint;
}

/**
 * One component of the extended state of a thread, and where an XSAVE area of standard format has it (bytes).
 */
export interface PlacedComponent {
  readonly number: number;
  readonly data: Uint8Array;
  readonly offset: number;
}

/** Floating-point and vector registers of a thread. */
export interface VectorState {
  /** The legacy region, 512 bytes on x86-64. */
  readonly fxsave: Uint8Array;
  /** Bit N set: component N is not in its initial state. */
  readonly xstateBv: bigint;
  /** Components above the legacy region that programs may use. */
  readonly components: readonly PlacedComponent[];
}

/** A note as it lies in a core file. */
export interface Note {
  readonly name: string;
  readonly type: number;
  readonly description: Uint8Array;
}

/** `struct elf_prstatus` and `struct user_regs_struct` of a note. */
export interface NoteFormat {
  /** Bytes of `struct elf_prstatus`. */
  readonly bytes: number;
  /** Byte offsets of `pr_pid`, of `pr_reg` and of `pr_fpvalid`. */
  readonly pid: number;
  readonly registers: number;
  readonly fpValid: number;
  /** Names of the 64-bit registers, in order. */
  readonly names: readonly string[];
  /** Whether the processor was executing a program, not the kernel. */
  isUserMode(registers: Readonly<Record<string, bigint>>): boolean;
  /** The notes of a thread's floating-point and vector registers, as a core file of the kernel has them. */
  vectorNotes(state: VectorState): Note[];
}
