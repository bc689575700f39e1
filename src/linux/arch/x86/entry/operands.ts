import { decode, type Instruction, NotFollowed } from './instruction.ts';

/** Registers by their numbers in instructions, under the names of pt_regs. */
export const REGISTERS = [
  ...(['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'] as const),
  ...(['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const),
] as const;
export type RegisterName = (typeof REGISTERS)[number];
export type GeneralRegisters = Readonly<Record<RegisterName, bigint>>;

/** Numbers of some of them. */
export const [CX, SP, BP, SI, DI] = [1, 4, 5, 6, 7] as const;
export const WORD = 8;

/** What the machine reads and writes; each throws a NotFollowed for what it has not. */
export interface MachineMemory {
  /** Some bytes of code, `LONGEST_INSTRUCTION` where there are so many. */
  code(address: bigint): Buffer;
  load(address: bigint, bytes: number): bigint;
  /** A constant or variable of the kernel, which the code addresses by its own place. */
  loadOfKernel(address: bigint, bytes: number): bigint;
  store(address: bigint, bytes: number, value: bigint): void;
  /** The address of what a processor has at this place in the memory that is its own (GS). */
  perCpu(offset: bigint): bigint;
}

/** A processor's registers and memory, as instructions name them. */
export class Operands {
  readonly #registers: bigint[];
  protected readonly memory: MachineMemory;
  ip: bigint;

  constructor(memory: MachineMemory, registers: GeneralRegisters & { readonly ip: bigint }) {
    this.memory = memory;
    this.#registers = REGISTERS.map((name) => registers[name]);
    this.ip = registers.ip;
  }

  register(name: RegisterName): bigint {
    return this.get(REGISTERS.indexOf(name));
  }

  get all(): GeneralRegisters {
    const entries = REGISTERS.map((name, number) => [name, this.get(number)] as const);
    return Object.fromEntries(entries) as Record<RegisterName, bigint>;
  }

  /** The instruction that is next. */
  fetch(): Instruction {
    return decode(this.memory.code(this.ip));
  }

  /** A word above the stack pointer. */
  onStack(words: number): bigint {
    return this.memory.load(this.get(SP) + BigInt(words * WORD), WORD);
  }

  protected get(number: number): bigint {
    return this.#registers[number] ?? 0n;
  }

  /** What a register becomes: half of one clears the rest, less leaves it. */
  protected set(number: number, bytes: number, value: bigint): void {
    const low = BigInt.asUintN(bytes * 8, value);
    const old = this.get(number);
    this.#registers[number] = bytes >= 4 ? low : old - BigInt.asUintN(bytes * 8, old) + low;
  }

  protected push(value: bigint): void {
    const sp = BigInt.asUintN(64, this.get(SP) - 8n);
    this.memory.store(sp, WORD, value);
    this.set(SP, WORD, sp);
  }

  protected pop(): bigint {
    const value = this.onStack(0);
    this.set(SP, WORD, this.get(SP) + 8n);
    return value;
  }

  /** Where an operand in memory is, but for GS. */
  protected offset({ memory }: Instruction): bigint {
    if (memory === undefined) throw new NotFollowed('an operand is none in memory');
    const { base, index, scale, isRelative, displacement } = memory;
    const from = isRelative ? this.ip : base === undefined ? 0n : this.get(base);
    const scaled = index === undefined ? 0n : this.get(index) * scale;
    return BigInt.asUintN(64, from + scaled + displacement);
  }

  protected address(instruction: Instruction): bigint {
    const offset = this.offset(instruction);
    return instruction.isGs ? this.memory.perCpu(offset) : offset;
  }

  /** The value of the operand that is a register or in memory. */
  protected read(instruction: Instruction, bytes: number): bigint {
    const { rm, memory } = instruction;
    if (memory === undefined) return this.readRegister(rm, bytes, instruction);
    const address = this.address(instruction);
    return memory.isRelative && !instruction.isGs
      ? this.memory.loadOfKernel(address, bytes)
      : this.memory.load(address, bytes);
  }

  protected write(instruction: Instruction, bytes: number, value: bigint): void {
    const { rm, memory, rex } = instruction;
    if (memory === undefined) this.writeRegister(rm, bytes, value, rex);
    else this.memory.store(this.address(instruction), bytes, BigInt.asUintN(bytes * 8, value));
  }

  protected readRegister(number: number, bytes: number, { rex }: Instruction): bigint {
    requireLowByte(number, bytes, rex);
    return BigInt.asUintN(bytes * 8, this.get(number));
  }

  protected writeRegister(number: number, bytes: number, value: bigint, rex: number): void {
    requireLowByte(number, bytes, rex);
    this.set(number, bytes, value);
  }
}

/** Without a REX prefix these numbers name the second byte of another register. */
function requireLowByte(number: number, bytes: number, rex: number): void {
  if (bytes === 1 && rex === 0 && number >= 4 && number < 8)
    throw new NotFollowed('an instruction takes the second byte of a register');
}
