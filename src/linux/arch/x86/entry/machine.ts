import { Arithmetic } from './arithmetic.ts';
import { type Instruction, NotFollowed, REX } from './instruction.ts';
import { BP, CX, DI, type GeneralRegisters, type MachineMemory, Operands, SI, SP, WORD } from './operands.ts';

/** Model-specific registers that change how the processor guesses, and nothing else. */
const HARMLESS_MSRS: ReadonlySet<bigint> = new Set([0x48n, 0x49n]);
const DIRECTION = 1n << 10n;
/** The second bytes of 0F 01 that are used: CLAC, STAC. */
const ACCESS_CONTROL: ReadonlySet<number> = new Set([0xca, 0xcb]);
const SWAPGS = 0xf8;

/**
 * A processor that executes the kernel's entry code: the few instructions that this is made of, on registers
 * and memory that are given. What it does not know ends with a NotFollowed. Interrupts and page tables are
 * nothing to it.
 */
export class Machine extends Operands {
  readonly #arithmetic: Arithmetic;
  readonly #isBackward: boolean;
  /** How often the GS base was exchanged. */
  exchanges = 0;

  constructor(
    memory: MachineMemory,
    registers: GeneralRegisters & { readonly ip: bigint; readonly flags: bigint },
  ) {
    super(memory, registers);
    this.#arithmetic = new Arithmetic(registers.flags);
    this.#isBackward = (registers.flags & DIRECTION) !== 0n;
  }

  /** RFLAGS, as far as results set them: what cannot be told is clear. */
  get flags(): bigint {
    return this.#arithmetic.rflags;
  }

  /** Executes an instruction, but for the returns to user mode. */
  execute(instruction: Instruction): void {
    const next = this.ip + BigInt(instruction.length);
    const at = this.ip;
    this.ip = next;
    const { opcode } = instruction;
    const known =
      this.#moves(instruction) ||
      this.#goes(instruction) ||
      this.#computes(instruction) ||
      this.#isSystem(instruction, at);
    if (known) return;
    this.ip = at;
    throw new NotFollowed(`an instruction is not known (${opcode.toString(16)})`);
  }

  /** Instructions that move. */
  #moves(instruction: Instruction): boolean {
    const { opcode, reg, rex, operandBytes, immediate } = instruction;
    const low = (opcode & 7) + ((rex & REX.b) === 0 ? 0 : 8);
    const bytes = (opcode & 1) === 0 ? 1 : operandBytes;
    if (opcode >= 0x50 && opcode <= 0x57) this.push(this.get(low));
    else if (opcode >= 0x58 && opcode <= 0x5f) this.set(low, WORD, this.pop());
    else if (opcode === 0x68 || opcode === 0x6a) this.push(BigInt.asUintN(64, immediate));
    else if (opcode === 0x88 || opcode === 0x89)
      this.write(instruction, bytes, this.readRegister(reg, bytes, instruction));
    else if (opcode === 0x8a || opcode === 0x8b)
      this.writeRegister(reg, bytes, this.read(instruction, bytes), rex);
    else if ((opcode === 0xc6 || opcode === 0xc7) && (reg & 7) === 0)
      this.write(instruction, bytes, immediate);
    else if (opcode >= 0xb8 && opcode <= 0xbf) this.set(low, operandBytes, immediate);
    else if (opcode === 0x8d && !instruction.isGs) this.set(reg, operandBytes, this.offset(instruction));
    else if (opcode === 0x63) this.set(reg, operandBytes, BigInt.asIntN(32, this.read(instruction, 4)));
    else if (opcode === 0x86 || opcode === 0x87) this.#exchange(instruction, bytes);
    else if (opcode >= 0x0fb6 && opcode <= 0x0fbf && opcode !== 0x0fba) this.#extends(instruction);
    else if (opcode === 0xa4 || opcode === 0xa5) this.#moveString(instruction, bytes);
    else return opcode >= 0x0f40 && opcode <= 0x0f4f && this.#moveIf(instruction);
    return true;
  }

  #exchange(instruction: Instruction, bytes: number): void {
    const mine = this.readRegister(instruction.reg, bytes, instruction);
    const other = this.read(instruction, bytes);
    this.write(instruction, bytes, mine);
    this.writeRegister(instruction.reg, bytes, other, instruction.rex);
  }

  /** MOVZX, MOVSX. */
  #extends(instruction: Instruction): void {
    const { opcode, reg, operandBytes } = instruction;
    const bytes = (opcode & 1) === 0 ? 1 : 2;
    const value = this.read(instruction, bytes);
    this.set(reg, operandBytes, opcode >= 0x0fbe ? BigInt.asIntN(bytes * 8, value) : value);
  }

  #moveIf(instruction: Instruction): true {
    const { opcode, reg, operandBytes } = instruction;
    const value = this.read(instruction, operandBytes);
    const moves = this.#arithmetic.condition(opcode & 15);
    this.set(reg, operandBytes, moves ? value : this.get(reg));
    return true;
  }

  /** MOVS: as often as CX says if it repeats; a stack's worth at most. */
  #moveString({ repeats, isGs }: Instruction, bytes: number): void {
    const times = repeats ? this.get(CX) : 1n;
    if (this.#isBackward || isGs || times > 4096n) throw new NotFollowed('much is moved, or backwards');
    for (let i = 0n; i < times; i++) {
      this.memory.store(this.get(DI), bytes, this.memory.load(this.get(SI), bytes));
      this.set(SI, WORD, this.get(SI) + BigInt(bytes));
      this.set(DI, WORD, this.get(DI) + BigInt(bytes));
    }
    if (repeats) this.set(CX, WORD, 0n);
  }

  /** Instructions after which it goes on elsewhere, and those on the stack that go with them. */
  #goes(instruction: Instruction): boolean {
    const { opcode, reg, immediate } = instruction;
    const target = BigInt.asUintN(64, this.ip + immediate);
    const isCondition = (opcode >= 0x70 && opcode <= 0x7f) || (opcode >= 0x0f80 && opcode <= 0x0f8f);
    if (isCondition) {
      if (this.#arithmetic.condition(opcode & 15)) this.ip = target;
    } else if (opcode === 0xe9 || opcode === 0xeb) this.ip = target;
    else if (opcode === 0xe8) {
      this.push(this.ip);
      this.ip = target;
    } else if (opcode === 0xc3) this.ip = this.pop();
    else if (opcode === 0xc9) {
      this.set(SP, WORD, this.get(BP));
      this.set(BP, WORD, this.pop());
    } else if (opcode === 0xff && (reg & 7) === 6) this.push(this.read(instruction, WORD));
    else return false;
    return true;
  }

  #computes(instruction: Instruction): boolean {
    const { opcode, reg, operandBytes, immediate } = instruction;
    const bytes = (opcode & 1) === 0 ? 1 : operandBytes;
    if (opcode < 0x40 && (opcode & 7) < 6) this.#operates(instruction, bytes);
    else if (opcode === 0x80 || opcode === 0x81 || opcode === 0x83)
      this.#change(instruction, bytes, (value) => this.#arithmetic.operate(reg & 7, value, immediate, bytes));
    else if (opcode === 0x84 || opcode === 0x85)
      this.#arithmetic.logical(
        this.read(instruction, bytes) & this.readRegister(reg, bytes, instruction),
        bytes,
      );
    else if (opcode === 0xa8 || opcode === 0xa9)
      this.#arithmetic.logical(BigInt.asUintN(bytes * 8, this.get(0) & immediate), bytes);
    else if (opcode === 0xc0 || opcode === 0xc1) this.#shifts(instruction, bytes, immediate);
    else if (opcode === 0xd0 || opcode === 0xd1) this.#shifts(instruction, bytes, 1n);
    else if (opcode === 0xd2 || opcode === 0xd3) this.#shifts(instruction, bytes, this.get(CX));
    else if (opcode === 0xf6 || opcode === 0xf7) return this.#unary(instruction, bytes);
    else if ((opcode === 0xfe || opcode === 0xff) && (reg & 7) < 2)
      this.#change(instruction, bytes, (value) => this.#arithmetic.step(value, (reg & 7) === 0, bytes));
    else return this.#testsBit(instruction);
    return true;
  }

  /** Reads an operand and writes what becomes of it; undefined if it is only looked at. */
  #change(instruction: Instruction, bytes: number, become: (value: bigint) => bigint | undefined): void {
    const result = become(this.read(instruction, bytes));
    if (result !== undefined) this.write(instruction, bytes, result);
  }

  #operates(instruction: Instruction, bytes: number): void {
    const { opcode, reg, rex, immediate } = instruction;
    const operation = opcode >> 3;
    const form = opcode & 7;
    if (form >= 4) {
      const result = this.#arithmetic.operate(operation, this.get(0), immediate, bytes);
      if (result !== undefined) this.set(0, bytes, result);
      return;
    }
    const register = this.readRegister(reg, bytes, instruction);
    if (form < 2) {
      this.#change(instruction, bytes, (value) =>
        this.#arithmetic.operate(operation, value, register, bytes),
      );
      return;
    }
    const other = this.read(instruction, bytes);
    const result = this.#arithmetic.operate(operation, register, other, bytes);
    if (result !== undefined) this.writeRegister(reg, bytes, result, rex);
  }

  #shifts(instruction: Instruction, bytes: number, count: bigint): void {
    this.#change(instruction, bytes, (value) =>
      this.#arithmetic.shift(instruction.reg & 7, value, count, bytes),
    );
  }

  /** TEST, NOT, NEG. */
  #unary(instruction: Instruction, bytes: number): boolean {
    const operation = instruction.reg & 7;
    if (operation > 3) return false;
    this.#change(instruction, bytes, (value) => {
      if (operation === 2) return ~value;
      if (operation === 3) return this.#arithmetic.operate(5, 0n, value, bytes);
      this.#arithmetic.logical(value & BigInt.asUintN(bytes * 8, instruction.immediate), bytes);
      return undefined;
    });
    return true;
  }

  /** BT, BTS, BTR. In memory, a register may name a bit beyond the operand: then it is that operand's. */
  #testsBit(instruction: Instruction): boolean {
    const { opcode, reg, memory, operandBytes: bytes, immediate } = instruction;
    const byImmediate = opcode === 0x0fba;
    const operation = byImmediate ? (reg & 7) - 4 : (opcode - 0x0fa3) >> 3;
    const isKnown = byImmediate || opcode === 0x0fa3 || opcode === 0x0fab || opcode === 0x0fb3;
    if (!isKnown || operation < 0 || operation > 2) return false;
    const number = byImmediate ? immediate : this.readRegister(reg, bytes, instruction);
    const bits = BigInt(bytes * 8);
    if (memory !== undefined && !byImmediate && number >= bits)
      throw new NotFollowed('a bit is tested that is elsewhere');
    this.#change(instruction, bytes, (value) =>
      this.#arithmetic.bit(value, BigInt.asUintN(8, number) % bits, operation),
    );
    return true;
  }

  /** Instructions that say something to the processor, and nothing to registers and memory; those of none. */
  #isSystem(instruction: Instruction, at: bigint): boolean {
    const { opcode, rex, reg, rm, memory, repeats } = instruction;
    const isRegister = memory === undefined;
    // VERW of a constant tells of it in the zero flag.
    if (opcode === 0x0f00 && (reg & 7) === 5) this.#arithmetic.forget('zero');
    else if (opcode === 0x0f01 && isRegister) return this.#exchangesGs(at);
    else if (opcode === 0x0f20 && (reg === 3 || reg === 4)) this.set(rm, WORD, 0n);
    else if (opcode === 0x0f30) return HARMLESS_MSRS.has(BigInt.asUintN(32, this.get(CX)));
    else if (opcode === 0x90) return (rex & REX.b) === 0;
    else {
      const isFence = opcode === 0x0fae && isRegister && reg >= 5 && reg <= 7 && !repeats;
      const isHint = opcode === 0x0f0d || (opcode >= 0x0f18 && opcode <= 0x0f1f);
      const isInterrupts = opcode === 0xfa || opcode === 0xfb;
      return isFence || isHint || isInterrupts || opcode === 0xfc || (opcode === 0x0f22 && reg === 3);
    }
    return true;
  }

  #exchangesGs(at: bigint): boolean {
    const code = this.memory.code(at);
    const second = code[code.indexOf(0x01) + 1] ?? 0;
    if (second === SWAPGS) this.exchanges++;
    return second === SWAPGS || ACCESS_CONTROL.has(second);
  }
}
