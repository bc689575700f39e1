import { NotFollowed } from './instruction.ts';
import { Machine } from './machine.ts';
import type { GeneralRegisters, MachineMemory } from './operands.ts';

/** The kernel's entry text, and the names of functions. */
export interface EntryText {
  readonly start: bigint;
  readonly end: bigint;
  /** The function that an address is in. */
  functionAt(address: bigint): { readonly name: string; readonly offset: number } | undefined;
}

/** What the processor puts down at an exception, and takes up at its end. */
export interface InterruptFrame {
  readonly ip: bigint;
  readonly cs: bigint;
  readonly flags: bigint;
  readonly sp: bigint;
  readonly ss: bigint;
}

/** Where the way through the entry code ends. */
export type EntryEnd =
  /** A function in C is called, with the address of `struct pt_regs`. */
  | { readonly kind: 'entered'; readonly by: string; readonly regs: bigint; readonly exchanges: number }
  /** The processor takes up a frame: general registers as they are then, but for the stack pointer. */
  | {
      readonly kind: 'left';
      readonly general: GeneralRegisters;
      readonly frame: InterruptFrame;
      readonly exchanges: number;
    };

/**
 * Functions outside the entry text that it calls on its way, each by itself: that moves registers from one
 * stack to another, and what a processor is kept from guessing by (arch/x86/lib/retpoline.S).
 */
export const HELPERS: ReadonlySet<string> = new Set(
  `sync_regs entry_ibpb write_ibpb clear_bhb_loop entry_untrain_ret retbleed_untrain_ret zen_untrain_ret
  srso_untrain_ret srso_alias_untrain_ret srso_safe_ret srso_alias_safe_ret __x86_return_thunk its_return_thunk
  retbleed_return_thunk zen_return_thunk srso_return_thunk srso_alias_return_thunk`.split(/\s+/),
);

/** More than the longest way takes: the loops that clear the history of branches are some hundred steps. */
const MOST_STEPS = 4096;

const CALL = 0xe8;
const IRET = 0xcf;
const SYSRET = 0x0f07;
/** Selectors that SYSRET gives (the STAR register): user code and data. */
const [USER_CS, USER_DS] = [0x33n, 0x2bn];
/** RFLAGS that SYSRET takes from R11 (Intel SDM 2, SYSRET). */
const SYSRET_FLAGS = 0x3c7fd7n;
const ALWAYS_SET = 2n;

/** Whether an address is in code that is a way into or out of the kernel. */
export function isHelper(text: EntryText, address: bigint): boolean {
  return HELPERS.has(text.functionAt(address)?.name ?? '');
}

function isFollowed(text: EntryText, address: bigint): boolean {
  return (address >= text.start && address < text.end) || isHelper(text, address);
}

function leave(machine: Machine, frame: InterruptFrame): EntryEnd {
  const { exchanges, all } = machine;
  return { kind: 'left', general: { ...all, sp: frame.sp }, frame, exchanges };
}

/** The registers with which SYSRET goes to user mode. */
function sysretFrame(machine: Machine): InterruptFrame {
  const flags = (machine.register('r11') & SYSRET_FLAGS) | ALWAYS_SET;
  return { ip: machine.register('cx'), cs: USER_CS, flags, sp: machine.register('sp'), ss: USER_DS };
}

function iretFrame(machine: Machine): InterruptFrame {
  const [ip, cs, flags, sp, ss] = [0, 1, 2, 3, 4].map((word) => machine.onStack(word));
  if (ip === undefined || cs === undefined || flags === undefined || sp === undefined || ss === undefined)
    throw new NotFollowed('a frame is not whole');
  return { ip, cs, flags, sp, ss };
}

/** Where a call leads to; undefined if that is followed, as a part of the way. */
function entersC(machine: Machine, text: EntryText, target: bigint): EntryEnd | undefined {
  if (isFollowed(text, target)) return undefined;
  const called = text.functionAt(target);
  if (called?.offset !== 0) throw new NotFollowed('it calls what is no function');
  const [regs, sp] = [machine.register('di'), machine.register('sp')];
  if (regs !== sp) throw new NotFollowed(`it calls ${called.name} without registers`);
  return { kind: 'entered', by: called.name, regs, exchanges: machine.exchanges };
}

/**
 * Runs the kernel's entry code forward from where a processor was in it, over memory as it was then, to where
 * the kernel is entered or left. Throws a NotFollowed for whatever is not expected on the way; what is not
 * there in memory is `memory`'s to throw.
 */
export function runEntry(
  text: EntryText,
  memory: MachineMemory,
  registers: GeneralRegisters & { readonly ip: bigint; readonly flags: bigint },
): EntryEnd {
  const machine = new Machine(memory, registers);
  for (let step = 0; step < MOST_STEPS; step++) {
    if (!isFollowed(text, machine.ip)) throw new NotFollowed('it goes where it is not expected');
    const instruction = machine.fetch();
    const { opcode, operandBytes, length, immediate } = instruction;
    if (opcode === IRET && operandBytes === 8) return leave(machine, iretFrame(machine));
    if (opcode === SYSRET && operandBytes === 8) return leave(machine, sysretFrame(machine));
    if (opcode === CALL) {
      const target = BigInt.asUintN(64, machine.ip + BigInt(length) + immediate);
      const end = entersC(machine, text, target);
      if (end !== undefined) return end;
    }
    machine.execute(instruction);
  }
  throw new NotFollowed('it comes to no end');
}
