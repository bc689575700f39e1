// The real entry code of both releases, followed from every one of its instructions. Nothing here runs a guest.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { decode } from '../../../../src/linux/arch/x86/entry/instruction.ts';
import {
  type GeneralRegisters,
  Machine,
  type MachineMemory,
} from '../../../../src/linux/arch/x86/entry/machine.ts';
import type { EntryOutcome } from '../../../../src/linux/arch/x86/entry-registers.ts';
import { releases } from '../../../vmcore/fixtures.ts';
import { MadeEntry, type Values } from './made-entry.ts';

const GENERAL = 'r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di'.split(' ');
const NO_CALL = 0xffff_ffff_ffff_ffffn;
const ENOSYS = 0xffff_ffff_ffff_ffdan;
const KERNEL_IP = 0xffff_ffff_8000_1234n;

const [USER_IP, USER_FLAGS] = [0x40_1234n, 0x246n];

/** User registers of which each has a value of its own. */
const USER: Values = {
  ...Object.fromEntries(GENERAL.map((name, i) => [name, 0x1111_0000_0000n * BigInt(i + 1) + BigInt(i)])),
  ...{ orig_ax: NO_CALL, ip: USER_IP, cs: 0x33n, flags: USER_FLAGS, sp: 0x7ffd_1234_5678n, ss: 0x2bn },
};

/** Writes what the machine writes: the kernel's memory is as it is at that moment. */
class Live implements MachineMemory {
  readonly #kernel: MadeEntry;

  constructor(kernel: MadeEntry) {
    this.#kernel = kernel;
  }

  code(address: bigint): Buffer {
    return this.#kernel.memory.read(address, 15);
  }

  load(address: bigint, bytes: number): bigint {
    const read = this.#kernel.memory.read(address, bytes);
    return read.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
  }

  loadOfKernel(address: bigint, bytes: number): bigint {
    return this.load(address, bytes);
  }

  store(address: bigint, bytes: number, value: bigint): void {
    const buffer = Buffer.alloc(8);
    buffer.writeBigUInt64LE(value);
    this.#kernel.write(address, buffer.subarray(0, bytes));
  }

  perCpu(offset: bigint): bigint {
    return this.#kernel.perCpu(BigInt.asUintN(64, offset));
  }
}

type Start = GeneralRegisters & { readonly ip: bigint; readonly flags: bigint };

function startOf(values: Values): Start {
  const at = (name: string): bigint => values[name] ?? 0n;
  const [ax, cx, dx, bx, sp, bp, si, di] = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'].map(at);
  const [r8, r9, r10, r11, r12, r13, r14, r15] = [8, 9, 10, 11, 12, 13, 14, 15].map((n) => at(`r${n}`));
  const all = { ax, cx, dx, bx, sp, bp, si, di, r8, r9, r10, r11, r12, r13, r14, r15 };
  const whole = Object.fromEntries(Object.entries(all).map(([name, value]) => [name, value ?? 0n]));
  return { ...NONE, ...whole, ip: at('ip'), flags: at('flags') };
}

const NONE: GeneralRegisters = {
  ...{ ax: 0n, cx: 0n, dx: 0n, bx: 0n, sp: 0n, bp: 0n, si: 0n, di: 0n },
  ...{ r8: 0n, r9: 0n, r10: 0n, r11: 0n, r12: 0n, r13: 0n, r14: 0n, r15: 0n },
};

/**
 * Executes the entry code from a start to its end, and decides at each of its instructions as if the
 * processor had been stopped there.
 * @returns how many there were
 */
function atEach(
  kernel: MadeEntry,
  start: Values,
  look: (outcome: EntryOutcome, where: string) => void,
): number {
  const machine = new Machine(new Live(kernel), startOf(start));
  const inText = (address: bigint): boolean => {
    const name = kernel.symbolAt(address)?.name ?? '';
    const isText =
      address >= kernel.symbol('__entry_text_start') && address < kernel.symbol('__entry_text_end');
    return isText || /^(sync_regs|.*(untrain_ret|return_thunk|safe_ret))$/.test(name);
  };
  for (let steps = 1; ; steps++) {
    assert.ok(steps < 4000);
    const symbol = kernel.symbolAt(machine.ip);
    const where = `at ${symbol?.name}+0x${symbol?.offset.toString(16)}`;
    look(kernel.decide({ ...machine.all, ip: machine.ip, flags: machine.flags | 2n }), where);
    const instruction = decode(kernel.memory.read(machine.ip, 15));
    const target = machine.ip + BigInt(instruction.length) + instruction.immediate;
    const isEnd = instruction.opcode === 0xe8 && !inText(BigInt.asUintN(64, target));
    if (isEnd || instruction.opcode === 0xcf || instruction.opcode === 0x0f07) return steps;
    machine.execute(instruction);
  }
}

/** Puts a frame down as the processor does, and says where it is. */
function frame(kernel: MadeEntry, end: bigint, values: Values, error?: bigint): bigint {
  const words = [...['ss', 'sp', 'flags', 'cs', 'ip'].map((name) => values[name] ?? 0n)];
  if (error !== undefined) words.push(error);
  for (const [i, value] of words.entries()) kernel.writeWord(end - BigInt(8 * (i + 1)), value);
  return end - BigInt(8 * words.length);
}

/** Fills the place of the task's user registers. */
function userRegisters(kernel: MadeEntry, values: Values): void {
  const names = [...GENERAL, 'orig_ax', 'ip', 'cs', 'flags', 'sp', 'ss'];
  for (const [i, name] of names.entries())
    kernel.writeWord(kernel.userRegisters + BigInt(i * 8), values[name] ?? 0n);
}

/** Registers of an earlier entry, none of which may come out. */
function stale(kernel: MadeEntry): void {
  const old = Object.fromEntries(Object.keys(USER).map((name) => [name, 0x5555n]));
  userRegisters(kernel, { ...old, cs: 0x33n, ss: 0x2bn, orig_ax: 231n });
}

/** Changes bytes of the entry text wherever they are found: `undefined` stands for any. */
function patch(
  kernel: MadeEntry,
  pattern: readonly (number | undefined)[],
  bytes: readonly number[],
): number {
  const start = kernel.symbol('__entry_text_start');
  const text = kernel.memory.read(start, Number(kernel.symbol('__entry_text_end') - start));
  let found = 0;
  for (let at = 0; at + pattern.length <= text.length; at++) {
    if (!pattern.every((byte, i) => byte === undefined || text[at + i] === byte)) continue;
    kernel.write(start + BigInt(at), Buffer.from(bytes));
    found++;
  }
  return found;
}

const NOP2 = [0x66, 0x90];

/** With page-table isolation, IBRS, VERW and PCID: what an emulated processor does without. */
function withMitigations(kernel: MadeEntry): MadeEntry {
  assert.ok(patch(kernel, [0xeb, undefined, 0x0f, 0x20], NOP2) > 0, 'no CR3 is switched');
  patch(kernel, [0x0f, 0x20, 0xdf, 0xeb, undefined, 0x48, 0x89, 0xf8], [0x0f, 0x20, 0xdf, ...NOP2]);
  assert.ok(patch(kernel, [0xeb, undefined, 0xb9, 0x48, 0, 0, 0], NOP2) > 0, 'no IBRS is set');
  patch(kernel, [0xeb, 0x07, 0x0f, 0x00, 0x2d], NOP2);
  return kernel;
}

/** With loops over the history of branches in front of each system call. */
function withLoops(kernel: MadeEntry): MadeEntry {
  const at = kernel.symbol('entry_SYSCALL_64');
  const code = kernel.memory.read(at, 0x100);
  const place = code.lastIndexOf(Buffer.from([0x0f, 0x1f, 0x44, 0, 0]), code.indexOf(0xe8));
  assert.ok(place > 0);
  const call = Buffer.from([0xe8, 0, 0, 0, 0]);
  call.writeInt32LE(Number(kernel.symbol('clear_bhb_loop') - (at + BigInt(place) + 5n)), 1);
  kernel.write(at + BigInt(place), call);
  return kernel;
}

const VARIANTS = {
  'as it ran in a guest': (kernel: MadeEntry) => kernel,
  'with mitigations of older processors': withMitigations,
  'with loops before each call': withLoops,
};

/** Entry points with what the processor puts down: an error code, which some have. */
function entryPoints(kernel: MadeEntry): { name: string; error: bigint | undefined }[] {
  const withError =
    /_(page_fault|general_protection|invalid_tss|segment_not_present|stack_segment|alignment_check|control_protection)$/;
  const names = kernel.sorted.map(([, name]) => name);
  const faults =
    /^asm_exc_(page_fault|general_protection|divide_error|invalid_op|device_not_available|bounds|invalid_tss|segment_not_present|stack_segment|alignment_check|simd_error|coprocessor_error|control_protection)$/;
  return names
    .filter((name) => /^asm_sysvec_/.test(name) || faults.test(name))
    .map((name) => ({ name, error: withError.test(name) ? 4n : undefined }));
}

for (const release of releases) {
  for (const [variant, prepare] of Object.entries(VARIANTS)) {
    const made = (): MadeEntry => prepare(new MadeEntry(release));

    suite(`entry code of ${release}, ${variant},`, () => {
      test('into a system call: every instruction tells that it has not begun', () => {
        const kernel = made();
        stale(kernel);
        const call = { ...USER, ax: 39n, cx: USER_IP, r11: USER_FLAGS };
        const expected = { ...call, ip: USER_IP - 2n };
        const start = { ...call, ip: kernel.symbol('entry_SYSCALL_64'), flags: 2n };
        const gs: boolean[] = [];
        const steps = atEach(kernel, start, (outcome, where) => {
          assert.equal(outcome.kind, 'user', `${where}: ${JSON.stringify(outcome, text)}`);
          assert.deepEqual(outcome.kind === 'user' && outcome.registers, expected, where);
          assert.ok(outcome.kind === 'user' && outcome.isAtCall);
          gs.push(outcome.hasUserGs);
        });
        assert.ok(steps > 40);
        // Up to SWAPGS, which is the first instruction, or the second.
        const swapgs = gs.lastIndexOf(true);
        assert.ok(swapgs < 2 && gs.slice(0, swapgs).every((has) => has));
      });

      test('into an interrupt or a fault: every instruction tells the registers', () => {
        const kernel = made();
        const points = entryPoints(kernel);
        assert.ok(points.length > 20);
        for (const { name, error } of points) {
          stale(kernel);
          const sp = frame(kernel, kernel.entryStackEnd, USER, error);
          const start = { ...USER, ip: kernel.symbol(name), sp, flags: 2n };
          const steps = atEach(kernel, start, (outcome, where) => {
            assert.equal(outcome.kind, 'user', `${name} ${where}: ${JSON.stringify(outcome, text)}`);
            assert.deepEqual(outcome.kind === 'user' && outcome.registers, USER, `${name} ${where}`);
            assert.ok(outcome.kind === 'user' && !outcome.isAtCall);
          });
          assert.ok(steps > 40, name);
        }
      });

      test('into an interrupt of a device, by the vector that it pushes', () => {
        const kernel = made();
        stale(kernel);
        const sp = frame(kernel, kernel.entryStackEnd, USER);
        const start = { ...USER, ip: kernel.symbol('irq_entries_start'), sp, flags: 2n };
        atEach(kernel, start, (outcome, where) =>
          assert.deepEqual(outcome.kind === 'user' && outcome.registers, USER, where),
        );
      });

      test('into an interrupt of the kernel: the task’s registers are where they were', () => {
        const kernel = made();
        for (const end of [kernel.userRegisters - 0x100n, kernel.interruptStackEnd - 0x100n]) {
          userRegisters(kernel, { ...USER, orig_ax: 1n, ax: ENOSYS });
          const sp = frame(kernel, end, { ...USER, cs: 0x10n, ss: 0x18n, ip: KERNEL_IP, sp: end });
          const start = { ...USER, ip: kernel.symbol('asm_sysvec_apic_timer_interrupt'), sp, flags: 2n };
          atEach(kernel, start, (outcome, where) =>
            assert.deepEqual(outcome, { kind: 'kernel', ip: KERNEL_IP }, where),
          );
        }
      });

      test('out of an interrupt, and out of a system call both ways', () => {
        const kernel = made();
        const behind = behindCall(kernel);
        const answered = { ...USER, orig_ax: 39n, cx: USER_IP, r11: USER_FLAGS };
        const cases = [
          { ip: kernel.symbol('error_return'), al: 0n, saved: USER },
          { ip: behind, al: 1n, saved: answered },
          { ip: behind, al: 0n, saved: { ...answered, cx: 0x1234n } },
        ];
        for (const { ip, al, saved } of cases) {
          userRegisters(kernel, saved);
          const start = { ax: al, ip, sp: kernel.userRegisters, flags: 2n, r12: 0x77n, di: 0x88n };
          const gs: boolean[] = [];
          const steps = atEach(kernel, start, (outcome, where) => {
            assert.equal(outcome.kind, 'user', `${where}: ${JSON.stringify(outcome, text)}`);
            const expected = { ...saved, orig_ax: NO_CALL };
            assert.deepEqual(outcome.kind === 'user' && outcome.registers, expected, where);
            assert.equal(outcome.kind === 'user' && outcome.isAtCall, saved !== USER);
            gs.push(outcome.kind === 'user' && outcome.hasUserGs);
          });
          assert.ok(steps > 20);
          assert.deepEqual([gs[0], gs.at(-1)], [false, true]);
        }
      });

      test('out of an interrupt of the kernel', () => {
        const kernel = made();
        userRegisters(kernel, { ...USER, orig_ax: 1n });
        const end = kernel.userRegisters - 0x100n;
        frame(kernel, end, { ...USER, cs: 0x10n, ss: 0x18n, ip: KERNEL_IP, sp: end });
        const start = { ip: kernel.symbol('error_return'), sp: end - 168n, flags: 2n };
        atEach(kernel, start, (outcome, where) =>
          assert.deepEqual(outcome, { kind: 'kernel', ip: KERNEL_IP }, where),
        );
      });
    });
  }
}

function text(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `0x${value.toString(16)}` : value;
}

/** Where a system call's function returns to. */
function behindCall(kernel: MadeEntry): bigint {
  const at = kernel.symbol('entry_SYSCALL_64');
  const target = kernel.symbol('do_syscall_64');
  const code = kernel.memory.read(at, 0x140);
  for (let i = code.indexOf(0xe8); i !== -1; i = code.indexOf(0xe8, i + 1)) {
    const next = at + BigInt(i) + 5n;
    if (BigInt.asUintN(64, next + BigInt(code.readInt32LE(i + 1))) === target) return next;
  }
  throw new Error('there is no call of do_syscall_64');
}

for (const release of releases) {
  suite(`what nobody can tell, in the entry code of ${release},`, () => {
    /** A state in the middle of an interrupt's entry, and the kernel that it is of. */
    function interrupted(name = 'asm_sysvec_apic_timer_interrupt', values = USER, error?: bigint) {
      const kernel = new MadeEntry(release);
      stale(kernel);
      const sp = frame(kernel, kernel.entryStackEnd, values, error);
      return { kernel, registers: { ...USER, ip: kernel.symbol(name), sp, flags: 2n } };
    }
    const why = (outcome: EntryOutcome): string => (outcome.kind === 'unknown' ? outcome.why : outcome.kind);

    test('is code of 32 bits, and what comes behind an instruction', () => {
      for (const name of ['asm_exc_int3', 'asm_exc_overflow']) {
        const { kernel, registers } = interrupted(name);
        assert.match(why(kernel.decide(registers)), /^it leads to exc_(int3|overflow)$/);
      }
      const { kernel, registers } = interrupted('asm_sysvec_apic_timer_interrupt', { ...USER, cs: 0x23n });
      assert.match(why(kernel.decide(registers)), /none of 64-bit code/);
      for (const [, name] of kernel.sorted.filter(([, name]) => /^entry_\w*compat|^asm_int80/.test(name))) {
        assert.equal(kernel.decide({ ...registers, ip: kernel.symbol(name) }).kind, 'unknown', name);
      }
    });

    test('is an exception on a stack of its own', () => {
      const { kernel, registers } = interrupted();
      const names = ['asm_exc_nmi', 'asm_exc_debug', 'asm_exc_machine_check', 'asm_exc_double_fault'];
      for (const name of names.filter((one) => kernel.symbolMaybe(one) !== undefined)) {
        const sp = kernel.entryStackEnd + 0x8000n;
        assert.match(
          why(kernel.decide({ ...registers, ip: kernel.symbol(name), sp })),
          /is on no stack of it/,
        );
      }
    });

    test('is an exception that comes on the way, and a frame that leads into the middle of it', () => {
      for (const ip of ['native_irq_return_iret', 'entry_SYSCALL_64', 'error_entry', 'sync_regs']) {
        const kernel = new MadeEntry(release);
        const end = kernel.userRegisters - 0x100n;
        const place = kernel.symbol(ip);
        const values = { ...USER, cs: 0x10n, ss: 0x18n, ip: place, sp: end };
        const sp = frame(kernel, end, values, 0n);
        const registers = { ...USER, ip: kernel.symbol('asm_exc_page_fault'), sp, flags: 2n };
        assert.equal(kernel.decide(registers).kind, 'unknown', ip);
      }
    });

    test('is a way out that does not agree with the registers on the task’s stack', () => {
      const kernel = new MadeEntry(release);
      userRegisters(kernel, USER);
      const sp = frame(kernel, kernel.entryStackEnd, USER);
      const registers = { ...USER, ip: kernel.symbol('native_irq_return_iret'), sp };
      assert.equal(kernel.decide(registers).kind, 'user');
      for (const name of GENERAL) {
        const outcome = kernel.decide({ ...registers, [name]: 0x666n });
        assert.equal(why(outcome), `it takes another ${name} along than is on the task's stack`);
      }
      kernel.writeWord(sp, 0x666n);
      assert.match(why(kernel.decide(registers)), /another ip/);
    });

    test('is a segment of its own, an instruction that is not known, and memory that is not there', () => {
      const { kernel, registers } = interrupted();
      assert.equal(kernel.decide(registers).kind, 'user');
      assert.match(why(kernel.decide({ ...registers, sp: 0x7ffd_0000n })), /is on no stack of it/);
      const without = { ...registers, r12: undefined };
      assert.match(why(kernel.decide(without as unknown as Values)), /r12 is not known/);
      kernel.write(registers.ip, Buffer.from([0xcc]));
      assert.match(why(kernel.decide(registers)), /an instruction is not known/);
      kernel.write(registers.ip, Buffer.from([0xeb, 0xfe]));
      assert.match(why(kernel.decide(registers)), /comes to no end/);
      kernel.symbols.delete('cpu_tss_rw');
      assert.match(why(kernel.decide(registers)), /does not show its entry stack/);
    });

    test('restart_syscall(2) is kept as a call, which no other kernel knows', () => {
      const kernel = new MadeEntry(release);
      const call = { ...USER, ax: 219n, cx: USER_IP, r11: USER_FLAGS };
      const expected = { ...call, orig_ax: 219n, ax: ENOSYS };
      const into = kernel.decide({ ...call, ip: kernel.symbol('entry_SYSCALL_64'), flags: 2n });
      assert.deepEqual(into.kind === 'user' && into.registers, expected);
      const saved = { ...call, orig_ax: 35n, ip: USER_IP - 2n };
      userRegisters(kernel, saved);
      const sp = frame(kernel, kernel.entryStackEnd, saved);
      const out = kernel.decide({ ...saved, ip: kernel.symbol('native_irq_return_iret'), sp });
      assert.deepEqual(out.kind === 'user' && out.registers, expected);
    });

    test('ends in a refusal from any address, with any registers and stacks: never in an error, nor never', () => {
      const kernel = new MadeEntry(release);
      const random = numbers(release.length);
      const start = kernel.symbol('__entry_text_start');
      const bytes = Number(kernel.symbol('__entry_text_end') - start);
      const stacks = [
        kernel.stack + 0x3000n,
        kernel.entryStackEnd - 0x200n,
        kernel.interruptStackEnd - 0x200n,
      ];
      for (let round = 0; round < 1500; round++) {
        const base = stacks[random() % stacks.length] ?? 0n;
        for (let i = 0; i < 64; i++) {
          const value = random() % 3 === 0 ? base + BigInt((random() % 64) * 8) : BigInt(random());
          kernel.writeWord(base + BigInt(i * 8), value);
        }
        const registers = Object.fromEntries(GENERAL.map((name) => [name, BigInt(random()) << 32n]));
        const sp = base + BigInt((random() % 64) * 8);
        const ip = start + BigInt(random() % bytes);
        const outcome = kernel.decide({ ...registers, ip, sp, flags: BigInt(random()) });
        // The way into a system call is one from its first instruction on, whatever the registers are.
        const isCall =
          outcome.kind === 'user' &&
          outcome.isAtCall &&
          /^entry_SYSCALL_64/.test(kernel.symbolAt(ip)?.name ?? '');
        assert.ok(
          outcome.kind !== 'user' || isCall,
          `${kernel.symbolAt(ip)?.name}: ${JSON.stringify(outcome, text)}`,
        );
      }
    });
  });
}

/** The same numbers in each run: a linear congruential generator of 31 bits. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = Number((BigInt(state) * 1103515245n + 12345n) & 0x7fff_ffffn);
    return state >> 4;
  };
}
