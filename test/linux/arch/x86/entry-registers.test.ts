// The real entry code of both releases, followed from every one of its instructions.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { releases } from '../../../vmcore/fixtures.ts';
import { atEach } from './entry-steps.ts';
import {
  ENOSYS,
  frame,
  KERNEL_IP,
  MadeEntry,
  NO_CALL,
  stale,
  text,
  USER,
  USER_FLAGS,
  USER_IP,
  userRegisters,
} from './made-entry.ts';

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
