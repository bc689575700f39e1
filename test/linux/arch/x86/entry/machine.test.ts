import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arithmetic } from '../../../../../src/linux/arch/x86/entry/arithmetic.ts';
import { decode, NotFollowed } from '../../../../../src/linux/arch/x86/entry/instruction.ts';
import { Machine } from '../../../../../src/linux/arch/x86/entry/machine.ts';
import type { MachineMemory, RegisterName } from '../../../../../src/linux/arch/x86/entry/operands.ts';
import { REGISTERS } from '../../../../../src/linux/arch/x86/entry/operands.ts';

const VALUES = [0n, 1n, 2n, 0x7fn, 0x80n, 0xffn, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn, 1n << 63n];
const CMP = 7;

test('conditions are those of unsigned and signed numbers, in each size', () => {
  for (const bytes of [1, 2, 4, 8]) {
    const bits = bytes * 8;
    for (const a of VALUES)
      for (const b of VALUES) {
        const arithmetic = new Arithmetic(0n);
        assert.equal(arithmetic.operate(CMP, a, b, bytes), undefined);
        const [u, v] = [BigInt.asUintN(bits, a), BigInt.asUintN(bits, b)];
        const [s, t] = [BigInt.asIntN(bits, a), BigInt.asIntN(bits, b)];
        const expected = new Map([
          [0x2, u < v],
          [0x3, u >= v],
          [0x4, u === v],
          [0x5, u !== v],
          [0x6, u <= v],
          [0x7, u > v],
          [0x8, BigInt.asIntN(bits, a - b) < 0n],
          [0xc, s < t],
          [0xd, s >= t],
          [0xe, s <= t],
          [0xf, s > t],
        ]);
        for (const [number, holds] of expected)
          assert.equal(arithmetic.condition(number), holds, `${a} ${b} in ${bytes}, condition ${number}`);
      }
  }
});

test('what a result does not tell ends it', () => {
  const arithmetic = new Arithmetic(0n);
  assert.throws(() => arithmetic.condition(0xa), NotFollowed);
  arithmetic.bit(5n, 0n, 0);
  assert.equal(arithmetic.condition(2), true);
  assert.throws(() => arithmetic.condition(0xc), NotFollowed);
  arithmetic.forget('zero');
  assert.throws(() => arithmetic.condition(4), NotFollowed);
});

/** Memory of words at small addresses; what is the CPU's own is 0x10000 above. */
class Words implements MachineMemory {
  readonly words = new Map<bigint, bigint>();
  readonly #code: Buffer;

  constructor(code: Buffer) {
    this.#code = code;
  }

  code(address: bigint): Buffer {
    return this.#code.subarray(Number(address));
  }

  load(address: bigint, bytes: number): bigint {
    return BigInt.asUintN(bytes * 8, this.words.get(address) ?? 0n);
  }

  loadOfKernel(address: bigint, bytes: number): bigint {
    return this.load(address, bytes);
  }

  store(address: bigint, bytes: number, value: bigint): void {
    const old = this.words.get(address) ?? 0n;
    this.words.set(address, old - BigInt.asUintN(bytes * 8, old) + BigInt.asUintN(bytes * 8, value));
  }

  perCpu(offset: bigint): bigint {
    return offset + 0x10000n;
  }
}

/** Executes instructions one after the other, with registers that have their numbers in each byte. */
function run(hex: string, prepare: (memory: Words) => void = () => undefined) {
  const code = Buffer.from(hex.replaceAll(' ', ''), 'hex');
  const memory = new Words(code);
  prepare(memory);
  const values = REGISTERS.map((name, i) => [name, 0x0101_0101_0101_0101n * BigInt(i + 1)] as const);
  const registers = { ...(Object.fromEntries(values) as Record<RegisterName, bigint>), sp: 0x1000n };
  const machine = new Machine(memory, { ...registers, ip: 0n, flags: 2n });
  while (machine.ip < BigInt(code.length)) machine.execute(decode(code.subarray(Number(machine.ip))));
  return { machine, memory };
}

test('instructions do to registers of each size what the manual says', () => {
  // mov %rbx,%rax; mov %ecx,%eax; mov %dl,%al; xor %esi,%esi; movslq %edi,%r8
  assert.equal(run('4889d8').machine.register('ax'), 0x0404_0404_0404_0404n);
  assert.equal(run('89c8').machine.register('ax'), 0x0202_0202n);
  assert.equal(run('88d0').machine.register('ax'), 0x0101_0101_0101_0103n);
  assert.equal(run('31f6').machine.register('si'), 0n);
  assert.equal(run('b8 ffffffff 4c63c0').machine.register('r8'), (1n << 64n) - 1n);
  // and $-8,%rsp; shl $7,%rcx; sar $7,%rcx; bts $63,%rdi; add $8,%rsp; lea 8(%rsp,%rcx,2),%rax
  assert.equal(run('4883e4f8').machine.register('sp'), 0x1000n);
  assert.equal(run('48c1e107 48c1f907').machine.register('cx'), 0x0002_0202_0202_0202n);
  assert.equal(run('480fbaef3f').machine.register('di'), 0x8808_0808_0808_0808n);
  assert.equal(run('4883c408').machine.register('sp'), 0x1008n);
  assert.equal(run('488d444c08').machine.register('ax'), 0x0404_0404_0404_140cn);
  // dec %ecx; sub $1,%eax; or $0x800,%rdi; movzbl %dl,%eax
  assert.equal(run('ffc9').machine.register('cx'), 0x0202_0201n);
  assert.equal(run('83e801').machine.register('ax'), 0x0101_0100n);
  assert.equal(run('4881cf00080000').machine.register('di'), 0x0808_0808_0808_0808n);
  assert.equal(run('0fb6c2').machine.register('ax'), 3n);
});

test('the stack, the CPU’s own memory and jumps are followed', () => {
  // push %rdi; push $-38; push 8(%rsp); pop %rax; pop %rcx; pop %rdx
  const { machine, memory } = run('57 6ada ff742408 58 59 5a');
  assert.deepEqual(
    (['ax', 'cx', 'dx', 'sp'] as const).map((name) => machine.register(name)),
    [0x0808_0808_0808_0808n, (1n << 64n) - 38n, 0x0808_0808_0808_0808n, 0x1000n],
  );
  assert.equal(memory.words.get(0xff8n), 0x0808_0808_0808_0808n);
  // pop %rsp takes what it reads
  assert.equal(run('5c', ({ words }) => words.set(0x1000n, 0x42n)).machine.register('sp'), 0x42n);
  // mov %rsp,%gs:0x14; mov %gs:0x20(%rip),%rax
  assert.equal(run('6548892425 14000000').memory.words.get(0x10014n), 0x1000n);
  const own = run('65488b0520000000', ({ words }) => words.set(0x10028n, 7n));
  assert.equal(own.machine.register('ax'), 7n);
  // call over a word; ret behind it: xor %eax,%eax; call 1f; jmp 2f; 1: inc %eax; ret; 2: inc %eax
  assert.equal(run('31c0 e802000000 eb03 ffc0c3 ffc0').machine.register('ax'), 2n);
  // mov $21,%ecx; rep movsq
  const moved = run('be00200000 bf00300000 b915000000 f348a5', ({ words }) => words.set(0x20a0n, 9n));
  assert.deepEqual([moved.memory.words.get(0x30a0n), moved.machine.register('cx')], [9n, 0n]);
  assert.equal(run('0f01f8 0f01ca 0f01f8').machine.exchanges, 2);
});

test('what is not known is not followed', () => {
  // int3, ud2, rdmsr, wrmsr of another register, mov %rax,%gs, lsl, wrgsbase, rol, %ah, half an instruction
  for (const code of ['cc', '0f0b', '0f32', '0f30', '8ee8', '0f03c0', 'f3480faed8', 'd1c0', '88e0', 'e800'])
    assert.throws(() => run(code), NotFollowed, code);
});
