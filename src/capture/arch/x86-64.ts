import type { GeneralRegisters } from '../../arch/index.ts';
import { USER_CS, USER_DS, USER32_CS } from '../../arch/x86-64/registers.ts';
import { FXSAVE, XFEATURE } from '../../arch/x86-64/xstate.ts';
import type { UserPtRegs } from '../../linux/arch/x86/entry-registers.ts';
import { livePkru, readLiveXstate, readXstate, type Xstate } from '../../linux/arch/x86/fpu.ts';
import { TLS_ENTRIES, TLS_MIN } from '../../linux/arch/x86/processor.ts';
import { taskPtRegs } from '../../linux/arch/x86/ptrace.ts';
import { hasThreadFlag, type Task, TIF } from '../../linux/sched.ts';
import type { FpuState, TlsSlot, UserRegisters } from '../../model/process.ts';
import type { SavedCpu } from '../../stage-zero/saved.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { type RegistersAtEnd, registersAtEnd, wasSavingRegisters } from './interrupted.ts';
import type { LiveRegisters } from './live-registers.ts';

/** A thread's registers as the dead kernel saved them, or why they cannot be used. */
export interface CapturedRegisters {
  readonly registers: UserRegisters;
  readonly fpu: FpuState;
  readonly tls: readonly TlsSlot[];
  /** Reasons against resuming the thread, which last as long as it has what they name. */
  readonly problems: readonly string[];
  /** Why it cannot go on where it was: registers that nothing has any more, or that nobody can set. */
  readonly problemsOfState: readonly string[];
  /** The same that are in the values of its registers, which a living thread changes all the time. */
  readonly problemsOfValues: readonly string[];
  /** Facts for the report. */
  readonly notes: readonly string[];
  /** Segment bases that are those of when the thread last left a CPU, though it has been on one since. */
  readonly olderBases: readonly ('fs' | 'gs')[];
}

/** Where user space ends with five levels of page tables. */
const USER_END = 1n << 56n;
/**
 * RFLAGS: bit 1 is always set, interrupts are always on in user mode; nested task and the virtual modes never
 * are.
 */
const FLAGS_ALWAYS = 0x202n;
const FLAGS_NEVER = (1n << 14n) | (1n << 17n) | (1n << 19n) | (1n << 20n) | (3n << 12n);
/** With FRED the upper bits of the selector slots are used for other things. */
const SELECTOR = 0xffffn;
/** What CRIU's format has a place for. */
const restorable: ReadonlySet<number> = new Set([
  XFEATURE.fp,
  XFEATURE.sse,
  XFEATURE.ymm,
  XFEATURE.bndregs,
  XFEATURE.bndcsr,
  XFEATURE.opmask,
  XFEATURE.zmmHi256,
  XFEATURE.hi16Zmm,
  XFEATURE.pkru,
]);

function implausible(regs: UserPtRegs): string | undefined {
  const cs = regs.cs & SELECTOR;
  if (cs !== USER_CS || (regs.ss & SELECTOR) !== USER_DS) return 'has no user registers on its kernel stack';
  if (regs.ip >= USER_END || regs.sp >= USER_END) return 'has registers that point outside user space';
  if ((regs.flags & FLAGS_ALWAYS) !== FLAGS_ALWAYS || (regs.flags & FLAGS_NEVER) !== 0n) {
    return `has impossible processor flags (0x${regs.flags.toString(16)})`;
  }
  return undefined;
}

/** Segment descriptors of set_thread_area: eight bytes each, all zero where a slot is free. */
function readTls(kernel: Kernel, address: bigint): TlsSlot[] {
  const raw = kernel.memory.read(address, TLS_ENTRIES * 8);
  return Array.from({ length: TLS_ENTRIES }, (_, i) => ({
    entryNumber: TLS_MIN + i,
    low: raw.readUInt32LE(i * 8),
    high: raw.readUInt32LE(i * 8 + 4),
  }));
}

function fpuOf(state: Xstate): FpuState {
  return { fxsave: state.fxsave, xstateBv: state.xstateBv, components: state.components };
}

/** Names of components in use that no CRIU restores: AMX tiles, shadow stacks, PASID. */
function unrestorable(xstateBv: bigint): string[] {
  const problems: string[] = [];
  for (let number = 0; number < 63; number++) {
    if (((xstateBv >> BigInt(number)) & 1n) === 0n || restorable.has(number)) continue;
    const amx = number === XFEATURE.xtileCfg || number === XFEATURE.xtileData;
    problems.push(amx ? 'uses AMX tile registers' : `uses processor state component ${number}`);
  }
  return problems;
}

/**
 * The control bits of MXCSR: rounding, masks, flush to zero; the others tell which exceptions have happened.
 */
const MXCSR_CONTROL = 0xffc0;

/**
 * Whether rounding and exceptions are what every program starts with: functions have to preserve these
 * (System V ABI).
 */
export function hasDefaultModes(fxsave: Buffer): boolean {
  return (
    fxsave.readUInt16LE(FXSAVE.fcw) === FXSAVE.initialFcw &&
    (fxsave.readUInt32LE(FXSAVE.mxcsr) & MXCSR_CONTROL) === FXSAVE.initialMxcsr
  );
}

/**
 * Whether a thread has descriptors of segments (set_thread_area), or selectors of any: the kernel learns of a
 * change when the thread leaves its CPU. Programs of 64 bits have none.
 */
function hasSegments(kernel: Kernel, { tls, fsindex, gsindex, ds, es }: Task['thread']): boolean {
  const selectors = fsindex !== 0 || gsindex !== 0 || ds !== 0 || es !== 0;
  return selectors || readTls(kernel, tls).some(({ low, high }) => low !== 0 || high !== 0);
}

/** A CPU that a task was executing on when the kernel died. */
export interface OnCpu {
  readonly cpu: number;
  /** It was changing to another task, and on that one's stack. */
  readonly isLeaving: boolean;
  /** What stage zero saved there. */
  readonly live: LiveRegisters;
}

/**
 * The user's GS base. The processor keeps it all through the kernel, beside the kernel's own; only at the
 * very edges of that it is the current one, and then an NMI puts the kernel's in its place (paranoid_entry,
 * arch/x86/entry/entry_64.S), and nobody has the user's. In a change to another task the processor gets that
 * one's after this one's was noted.
 */
function gsBaseOf(
  kernel: Kernel,
  { thread }: Task,
  onCpu: OnCpu | undefined,
  atEnd: RegistersAtEnd | undefined,
): { gsBase: bigint; isOlder: boolean } {
  const kept = onCpu?.live.processor?.kernelGsBase;
  if (onCpu === undefined || kept === undefined)
    return { gsBase: thread.gsbase, isOlder: onCpu !== undefined };
  if (onCpu.isLeaving) return { gsBase: thread.gsbase, isOlder: kept !== thread.gsbase };
  const isReplaced = atEnd?.kind === 'user' && atEnd.hasUserGs && kept === kernel.perCpu(0n, onCpu.cpu);
  return isReplaced ? { gsBase: thread.gsbase, isOlder: true } : { gsBase: kept, isOlder: false };
}

/**
 * General, floating-point and vector registers of a task. `onCpu` tells that the task was executing when the
 * kernel died: its vector registers were in the CPU, and a stock kernel saves them nowhere (unless
 * TIF_NEED_FPU_LOAD says that those in memory are the newer ones); they are what stage zero has saved. Throws
 * a VmcoreError if the structures cannot be read.
 */
export function captureRegisters(kernel: Kernel, task: Task, onCpu: OnCpu | undefined): CapturedRegisters {
  const atEnd = onCpu && !onCpu.isLeaving ? registersAtEnd(kernel, onCpu.cpu, task) : undefined;
  const regs: UserPtRegs = atEnd?.kind === 'user' ? atEnd.registers : taskPtRegs(kernel, task.stack);
  const thread = task.thread;
  const inCpu = onCpu !== undefined && !hasThreadFlag(task, TIF.needFpuLoad);
  const { processor, saved } = onCpu?.live ?? {};
  // The kernel notes the user's GS base and key rights when a thread leaves a CPU; a thread sets its own.
  const { gsBase, isOlder } = gsBaseOf(kernel, task, onCpu, atEnd);
  const xstate =
    saved === undefined
      ? readXstate(kernel, thread.fpstate, processor ? livePkru(kernel, processor.xsave) : thread.pkru)
      : readLiveXstate(kernel, saved.xsave, thread.fpstate);
  const problems = problemsOfTask(task);
  const ofState = unrestorable(xstate.xstateBv);
  const notes: string[] = [];
  const is32Bit = (regs.cs & SELECTOR) === USER32_CS;
  if (is32Bit) problems.push('runs 32-bit code');
  const wrong = is32Bit ? undefined : implausible(regs);
  const isOutside = thread.fsbase >= USER_END || gsBase >= USER_END;
  if (atEnd?.kind === 'lost') ofState.push(atEnd.why);
  if (onCpu !== undefined && saved === undefined && wasSavingRegisters(kernel, onCpu, task))
    ofState.push('was having its vector registers saved by the kernel');
  if (onCpu?.isLeaving && processor !== undefined && mayHaveOthersRights(kernel, task, processor, xstate))
    ofState.push('was being taken off a CPU, and its rights to memory protection keys cannot be told');
  if (onCpu !== undefined && hasSegments(kernel, thread))
    problems.push('was on a CPU and has segments of its own, which it may have changed');
  if (inCpu && saved === undefined) {
    const isAtCall = atEnd?.kind === 'user' && atEnd.isAtCall;
    if (BigInt.asIntN(64, regs.orig_ax) === -1n && !isAtCall) {
      ofState.push(`was computing on CPU ${onCpu.cpu}: its vector registers ${onCpu.live.why}`);
    } else if (hasDefaultModes(xstate.fxsave)) {
      notes.push(
        `thread ${task.pid} was in a system call on a CPU: what it had in vector registers is lost, which by the calling convention is nothing; its floating-point modes are those of when it last left a CPU, the usual ones`,
      );
    } else {
      ofState.push(
        'was in a system call on a CPU and has floating-point modes of its own, which it may have changed since they were saved',
      );
    }
  }
  return {
    registers: {
      ...pickRegisters(regs),
      fsBase: thread.fsbase,
      gsBase,
      ds: BigInt(thread.ds),
      es: BigInt(thread.es),
      fs: BigInt(thread.fsindex),
      gs: BigInt(thread.gsindex),
    },
    fpu: fpuOf(xstate),
    tls: readTls(kernel, thread.tls),
    problems,
    problemsOfState: ofState,
    problemsOfValues: [
      ...(wrong === undefined ? [] : [wrong]),
      ...(isOutside ? ['has a thread pointer outside user space'] : []),
    ],
    notes,
    olderBases: onCpu === undefined ? [] : isOlder ? ['fs', 'gs'] : ['fs'],
  };
}

/**
 * Whether the key rights in a processor may be another task's: when it changes tasks it gets the next one's
 * as soon as the kernel has noted those of the one before.
 */
function mayHaveOthersRights(
  kernel: Kernel,
  { thread }: Task,
  { xsave }: SavedCpu,
  { components }: Xstate,
): boolean {
  const hasKeys = components.some(({ number }) => number === XFEATURE.pkru);
  return hasKeys && livePkru(kernel, xsave) !== thread.pkru;
}

/** What the kernel notes of a thread beside its registers. */
function problemsOfTask(task: Task): string[] {
  const { ptraceDr7, ioBitmap, ioplEmul, features } = task.thread;
  const says: readonly (string | false)[] = [
    ptraceDr7 !== 0n && 'has hardware breakpoints',
    (ioBitmap !== 0n || ioplEmul !== 0n) && 'has access to I/O ports',
    ((features ?? 0n) & 1n) !== 0n && 'has a shadow stack',
    hasThreadFlag(task, TIF.nocpuid) && 'may not use CPUID (arch_prctl)',
    hasThreadFlag(task, TIF.notsc) && 'may not use the time stamp counter (prctl)',
  ];
  return says.filter((one) => one !== false);
}

function pickRegisters(regs: UserPtRegs): GeneralRegisters {
  const { r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, ip, flags, sp } = regs;
  const general = { r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, ip, flags, sp };
  return { ...general, origAx: regs.orig_ax, cs: regs.cs & SELECTOR, ss: regs.ss & SELECTOR };
}

/** What a thread put down when it last entered the kernel; of one that has left it since, from then on. */
export function registersAtEntry(kernel: Kernel, task: Pick<Task, 'stack'>): GeneralRegisters {
  return pickRegisters(taskPtRegs(kernel, task.stack));
}
