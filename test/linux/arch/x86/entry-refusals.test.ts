// Where following the entry code ends in a refusal.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { EntryOutcome } from '../../../../src/linux/arch/x86/entry-registers.ts';
import { releases } from '../../../vmcore/fixtures.ts';
import {
  ENOSYS,
  frame,
  GENERAL,
  MadeEntry,
  stale,
  text,
  USER,
  USER_FLAGS,
  USER_IP,
  userRegisters,
  type Values,
} from './made-entry.ts';

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
