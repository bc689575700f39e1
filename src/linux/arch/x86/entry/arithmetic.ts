import { NotFollowed } from './instruction.ts';

/** What the processor remembers of the last result; undefined where that cannot be told. */
export interface Flags {
  carry: boolean | undefined;
  zero: boolean | undefined;
  sign: boolean | undefined;
  overflow: boolean | undefined;
}

/** Bits of RFLAGS. */
const BIT = { carry: 0n, zero: 6n, sign: 7n, overflow: 11n } as const;
const NAMES = ['carry', 'zero', 'sign', 'overflow'] as const;

function isSet(value: bigint, bit: bigint): boolean {
  return ((value >> bit) & 1n) !== 0n;
}

/** The arithmetic of integers, with the flags that jumps ask for (Intel SDM 1, 3.4.3.1). */
export class Arithmetic {
  readonly flags: Flags;

  constructor(rflags: bigint) {
    const { carry, zero, sign, overflow } = BIT;
    this.flags = {
      carry: isSet(rflags, carry),
      zero: isSet(rflags, zero),
      sign: isSet(rflags, sign),
      overflow: isSet(rflags, overflow),
    };
  }

  get rflags(): bigint {
    const bits = NAMES.map((name) => (this.flags[name] === true ? 1n << BIT[name] : 0n));
    return bits.reduce((all, bit) => all | bit, 0n);
  }

  /** What is not told from here on. */
  forget(...names: (keyof Flags)[]): void {
    for (const name of names) this.flags[name] = undefined;
  }

  #known(name: keyof Flags): boolean {
    const value = this.flags[name];
    if (value === undefined) throw new NotFollowed('it depends on what a result was that is not known');
    return value;
  }

  /** One of the sixteen conditions, by its number; parity is not followed. */
  condition(number: number): boolean {
    const holds = (): boolean => {
      switch (number >> 1) {
        case 0:
          return this.#known('overflow');
        case 1:
          return this.#known('carry');
        case 2:
          return this.#known('zero');
        case 3:
          return this.#known('carry') || this.#known('zero');
        case 4:
          return this.#known('sign');
        case 6:
          return this.#known('sign') !== this.#known('overflow');
        case 7:
          return this.#known('zero') || this.#known('sign') !== this.#known('overflow');
        default:
          throw new NotFollowed('it depends on a parity');
      }
    };
    return holds() !== ((number & 1) === 1);
  }

  /** Sets what a result without carry says, and returns it. */
  logical(value: bigint, bytes: number): bigint {
    this.#says(value, bytes);
    this.flags.carry = false;
    this.flags.overflow = false;
    return value;
  }

  #says(value: bigint, bytes: number): void {
    this.flags.zero = value === 0n;
    this.flags.sign = isSet(value, BigInt(bytes * 8 - 1));
  }

  /** ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, in the order of their numbers; undefined: nothing is written. */
  operate(operation: number, left: bigint, right: bigint, bytes: number): bigint | undefined {
    const bits = bytes * 8;
    const [a, b] = [BigInt.asUintN(bits, left), BigInt.asUintN(bits, right)];
    switch (operation) {
      case 0:
        return this.#add(a, b, 0n, bytes);
      case 1:
        return this.logical(a | b, bytes);
      case 2:
        return this.#add(a, b, this.#known('carry') ? 1n : 0n, bytes);
      case 3:
        return this.#subtract(a, b, this.#known('carry') ? 1n : 0n, bytes);
      case 4:
        return this.logical(a & b, bytes);
      case 6:
        return this.logical(a ^ b, bytes);
      default: {
        const result = this.#subtract(a, b, 0n, bytes);
        return operation === 7 ? undefined : result;
      }
    }
  }

  #add(a: bigint, b: bigint, carried: bigint, bytes: number): bigint {
    const bits = bytes * 8;
    const sum = a + b + carried;
    const result = BigInt.asUintN(bits, sum);
    this.#says(result, bytes);
    this.flags.carry = sum !== result;
    this.flags.overflow = isSet(~(a ^ b) & (a ^ result), BigInt(bits - 1));
    return result;
  }

  #subtract(a: bigint, b: bigint, borrowed: bigint, bytes: number): bigint {
    const bits = bytes * 8;
    const result = BigInt.asUintN(bits, a - b - borrowed);
    this.#says(result, bytes);
    this.flags.carry = a < b + borrowed;
    this.flags.overflow = isSet((a ^ b) & (a ^ result), BigInt(bits - 1));
    return result;
  }

  /** INC or DEC, which leave the carry. */
  step(value: bigint, isUp: boolean, bytes: number): bigint {
    const { carry } = this.flags;
    const result = isUp ? this.#add(value, 1n, 0n, bytes) : this.#subtract(value, 1n, 0n, bytes);
    this.flags.carry = carry;
    return result;
  }

  /** SHL, SHR or SAR (4, 5, 7). What a shift by nothing leaves is left. */
  shift(operation: number, value: bigint, count: bigint, bytes: number): bigint {
    const bits = BigInt(bytes * 8);
    const by = count & (bytes === 8 ? 63n : 31n);
    if (by === 0n) return value;
    if (by > bits) throw new NotFollowed('something is shifted by more than it has');
    const wide = operation === 7 ? BigInt.asIntN(bytes * 8, value) : value;
    if (operation !== 4 && operation !== 5 && operation !== 7) throw new NotFollowed('something is rotated');
    const result = BigInt.asUintN(bytes * 8, operation === 4 ? wide << by : wide >> by);
    this.#says(result, bytes);
    this.flags.carry = isSet(wide, operation === 4 ? bits - by : by - 1n);
    this.forget('overflow');
    return result;
  }

  /** BT, BTS or BTR (0, 1, 2) of a bit; undefined: nothing is written. */
  bit(value: bigint, number: bigint, operation: number): bigint | undefined {
    this.flags.carry = isSet(value, number);
    this.forget('sign', 'overflow');
    const mask = 1n << number;
    if (operation === 0) return undefined;
    return operation === 1 ? value | mask : value & ~mask;
  }
}
