/** What is not followed any further; the message is the end of a sentence. */
export class NotFollowed extends Error {}

/** How an operand in memory is addressed. */
export interface MemoryOperand {
  /** Number of a register; undefined if there is none. */
  readonly base: number | undefined;
  readonly index: number | undefined;
  readonly scale: bigint;
  /** Relative to the next instruction. */
  readonly isRelative: boolean;
  readonly displacement: bigint;
}

/** An instruction of 64-bit mode, as far as its bytes tell (Intel SDM 2, chapter 2). */
export interface Instruction {
  readonly length: number;
  /** That of two bytes with 0x0f00. */
  readonly opcode: number;
  /** 0 if there is none. */
  readonly rex: number;
  readonly repeats: boolean;
  readonly isGs: boolean;
  /** Size of its operands where the opcode does not say another: 2, 4 or 8. */
  readonly operandBytes: number;
  /** The fields of the byte behind the opcode: a register or a part of the opcode, and a register. */
  readonly reg: number;
  readonly rm: number;
  /** Undefined if `rm` is a register. */
  readonly memory: MemoryOperand | undefined;
  /** With its sign. */
  readonly immediate: bigint;
}

export const REX = { w: 8, r: 4, x: 2, b: 1 } as const;
/** The longest instruction that a processor takes. */
export const LONGEST_INSTRUCTION = 15;

/**
 * What stands behind an opcode: `m` the byte of operands; `b`, `z`, `v` an immediate of 1, of 4, and of 4
 * or 8 bytes.
 */
type Form = '' | 'm' | 'b' | 'z' | 'v' | 'mb' | 'mz';

function range(from: number, to: number, form: Form): [number, Form][] {
  return Array.from({ length: to - from + 1 }, (_, i) => [from + i, form]);
}

/** The eight arithmetic operations of the first quarter of the opcodes. */
const ARITHMETIC: [number, Form][] = Array.from({ length: 8 }, (_, i) => i * 8).flatMap((first) => [
  ...range(first, first + 3, 'm'),
  [first + 4, 'b'],
  [first + 5, 'z'],
]);

/** The instructions that the entry code is made of; whatever else stands there is not followed. */
const FORMS: ReadonlyMap<number, Form> = new Map<number, Form>([
  ...ARITHMETIC,
  ...range(0x50, 0x5f, ''),
  ...range(0x70, 0x7f, 'b'),
  ...range(0x84, 0x8b, 'm'),
  ...range(0xb8, 0xbf, 'v'),
  ...range(0xd0, 0xd3, 'm'),
  ...range(0xfa, 0xfd, ''),
  ...([0x63, 0x8d, 0xf6, 0xf7, 0xfe, 0xff] as const).map((code): [number, Form] => [code, 'm']),
  ...([0x90, 0xa4, 0xa5, 0xc3, 0xc9, 0xcf] as const).map((code): [number, Form] => [code, '']),
  ...([0x6a, 0xa8, 0xeb] as const).map((code): [number, Form] => [code, 'b']),
  ...([0x68, 0xa9, 0xe8, 0xe9] as const).map((code): [number, Form] => [code, 'z']),
  ...([0x80, 0x83, 0xc0, 0xc1, 0xc6] as const).map((code): [number, Form] => [code, 'mb']),
  ...([0x81, 0xc7] as const).map((code): [number, Form] => [code, 'mz']),
  ...([0x0f00, 0x0f01, 0x0f0d, 0x0f20, 0x0f22] as const).map((code): [number, Form] => [code, 'm']),
  ...range(0x0f18, 0x0f1f, 'm'),
  ...range(0x0f40, 0x0f4f, 'm'),
  ...range(0x0f80, 0x0f8f, 'z'),
  ...([0x0fa3, 0x0fab, 0x0fae, 0x0fb3, 0x0fb6, 0x0fb7, 0x0fbe, 0x0fbf] as const).map(
    (code): [number, Form] => [code, 'm'],
  ),
  ...([0x0f07, 0x0f30] as const).map((code): [number, Form] => [code, '']),
  [0x0fba, 'mb'],
]);

/** The bytes of one instruction, read one after the other. */
class Bytes {
  readonly #code: Buffer;
  at = 0;

  constructor(code: Buffer) {
    this.#code = code;
  }

  /** A number with its sign. */
  signed(bytes: 1 | 2 | 4 | 8): bigint {
    if (this.at + bytes > this.#code.length) throw new NotFollowed('an instruction has no end');
    const value = bytes === 8 ? this.#code.readBigInt64LE(this.at) : this.#code.readIntLE(this.at, bytes);
    this.at += bytes;
    return BigInt(value);
  }

  byte(): number {
    return Number(BigInt.asUintN(8, this.signed(1)));
  }
}

interface Prefixes {
  readonly first: number;
  readonly rex: number;
  readonly repeats: boolean;
  readonly isGs: boolean;
  readonly isShort: boolean;
}

function readPrefixes(bytes: Bytes): Prefixes {
  let [repeats, isGs, isShort] = [false, false, false];
  for (;;) {
    const byte = bytes.byte();
    if (byte === 0xf3) repeats = true;
    else if (byte === 0x65) isGs = true;
    else if (byte === 0x66) isShort = true;
    // Of segments that mean nothing in 64-bit mode: padding.
    else if (byte !== 0x2e && byte !== 0x3e) {
      const rex = (byte & 0xf0) === 0x40 ? byte : 0;
      return { first: rex === 0 ? byte : bytes.byte(), rex, repeats, isGs, isShort };
    }
  }
}

/** The operand in memory that a `mod` other than 3 names. */
function readMemory(bytes: Bytes, mod: number, rm: number, rex: number): MemoryOperand {
  const none = { base: undefined, index: undefined, scale: 1n, isRelative: false };
  const displacementOf = (): bigint => (mod === 0 ? 0n : bytes.signed(mod === 1 ? 1 : 4));
  if (rm !== 4) {
    if (mod === 0 && rm === 5) return { ...none, isRelative: true, displacement: bytes.signed(4) };
    return { ...none, base: rm + ((rex & REX.b) === 0 ? 0 : 8), displacement: displacementOf() };
  }
  const sib = bytes.byte();
  const index = ((sib >> 3) & 7) + ((rex & REX.x) === 0 ? 0 : 8);
  const base = sib & 7;
  const indexed = { ...none, index: index === 4 ? undefined : index, scale: 1n << BigInt(sib >> 6) };
  if (mod === 0 && base === 5) return { ...indexed, displacement: bytes.signed(4) };
  return { ...indexed, base: base + ((rex & REX.b) === 0 ? 0 : 8), displacement: displacementOf() };
}

/** The immediate of F6 and F7, which only the test among them has. */
function readImmediate(bytes: Bytes, form: Form, operandBytes: number): bigint {
  if (form.endsWith('b')) return bytes.signed(1);
  if (form.endsWith('z')) return bytes.signed(operandBytes === 2 ? 2 : 4);
  if (form !== 'v') return 0n;
  return operandBytes === 8 ? bytes.signed(8) : bytes.signed(operandBytes === 2 ? 2 : 4);
}

/** Decodes the instruction at the beginning of some code. Throws a NotFollowed for one that is not known. */
export function decode(code: Buffer): Instruction {
  const bytes = new Bytes(code);
  const { first, rex, repeats, isGs, isShort } = readPrefixes(bytes);
  const opcode = first === 0x0f ? 0x0f00 + bytes.byte() : first;
  const form = FORMS.get(opcode);
  if (form === undefined) throw new NotFollowed(`an instruction is not known (${codeText(code)})`);
  const operandBytes = (rex & REX.w) !== 0 ? 8 : isShort ? 2 : 4;
  let [reg, rm] = [0, 0];
  let memory: MemoryOperand | undefined;
  if (form.startsWith('m')) {
    const modrm = bytes.byte();
    reg = ((modrm >> 3) & 7) + ((rex & REX.r) === 0 ? 0 : 8);
    rm = modrm & 7;
    if (modrm >> 6 !== 3) memory = readMemory(bytes, modrm >> 6, rm, rex);
    else if ((rex & REX.b) !== 0) rm += 8;
  }
  const tests = (opcode === 0xf6 || opcode === 0xf7) && (reg & 7) < 2;
  const immediate = readImmediate(bytes, tests ? (opcode === 0xf6 ? 'b' : 'z') : form, operandBytes);
  return { length: bytes.at, opcode, rex, repeats, isGs, operandBytes, reg, rm, memory, immediate };
}

/** The first bytes of some code, for messages. */
export function codeText(code: Buffer): string {
  return code.subarray(0, 8).toString('hex');
}
