// Boots one bare guest in which every CPU makes system calls all the time, and stops it again and again.
// Where a CPU is in the kernel's entry code, what the dump says that this leads to is compared with what the
// CPU itself comes to, one instruction after the other.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { withDebugger } from '../../lab/debugger.ts';
import { stopInEntryCode } from '../../lab/fault.ts';
import type { GdbRemote } from '../../lab/gdb-remote.ts';
import { type RegistersAtEnd, registersAtEnd } from '../../src/capture/arch/index.ts';
import { isHelper } from '../../src/linux/arch/x86/entry/run.ts';
import { entryText } from '../../src/linux/arch/x86/entry-registers.ts';
import { currentTask } from '../../src/linux/current.ts';
import { taskAt } from '../../src/linux/sched.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { bootTestGuest, isWhole, release, scratchDirectory, type TestGuest } from './harness.ts';

const CPUS = 2;
/** As many states in the entry code are looked at. */
const WANTED = 20;
const MOST_STEPS = 2000;
const NAMES = 'r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss'.split(' ');
const PRIVILEGE = 3n;
const NO_CALL = 0xffff_ffff_ffff_ffffn;
const SELECTORS = new Set(['cs', 'ss']);

type Registers = Readonly<Record<string, bigint>>;

/** Where a CPU comes to: user mode, or a function with registers. */
type Truth = { readonly left: Registers } | { readonly by: string; readonly regs: Registers };

/** Steps until the CPU has left the entry code. */
async function follow(kernel: Kernel, remote: GdbRemote, cpu: number): Promise<Truth> {
  const text = entryText(kernel);
  assert.ok(text);
  for (let step = 0; step < MOST_STEPS; step++) {
    const registers = await remote.registers(cpu);
    const { ip = 0n, cs = 0n, di = 0n } = registers;
    if ((cs & PRIVILEGE) !== 0n) return { left: registers };
    if ((ip < text.start || ip >= text.end) && !isHelper(text, ip)) {
      const symbol = kernel.symbolAt(ip);
      if (symbol?.offset !== 0) return { by: 'the kernel', regs: { cs } };
      const words = await remote.read(kernel.memory.translate(di), NAMES.length * 8);
      const regs = Object.fromEntries(NAMES.map((name, i) => [name, words.readBigUInt64LE(i * 8)]));
      return { by: symbol.name, regs };
    }
    await remote.step(cpu);
  }
  throw new Error(`CPU ${cpu} does not come out of the entry code`);
}

/** User registers where a thread that was caught there goes on. */
function goesOn(truth: Truth): Registers {
  if ('left' in truth) return { ...truth.left, orig_ax: NO_CALL };
  const { by, regs } = truth;
  if (by !== 'do_syscall_64') return regs;
  return { ...regs, ax: regs.orig_ax ?? 0n, orig_ax: NO_CALL, ip: (regs.ip ?? 0n) - 2n };
}

function isOfKernel(truth: Truth): boolean {
  return !('left' in truth) && ((truth.regs.cs ?? 0n) & PRIVILEGE) === 0n;
}

/** Throws unless what was decided is what the CPU has come to. */
function compare(outcome: RegistersAtEnd, truth: Truth, where: string): void {
  if (outcome.kind !== 'user') {
    assert.ok(outcome.kind === 'lost' || isOfKernel(truth), `${where}: ${outcome.kind}`);
    return;
  }
  const expected = goesOn(truth);
  const found: Registers = { ...outcome.registers };
  for (const name of NAMES) {
    const mask = SELECTORS.has(name) ? 0xffffn : NO_CALL;
    assert.equal((found[name] ?? 0n) & mask, (expected[name] ?? 0n) & mask, `${where}: ${name}`);
  }
}

// Unit tests decide at each instruction, on the bytes of both kernels: this shows that a CPU agrees.
suite(`the entry code of a living guest with ${release}`, { skip: !isWhole }, () => {
  let guest: TestGuest | undefined;
  const scratch = scratchDirectory();
  const dump = join(scratch.path, 'dump');
  after(async () => {
    scratch.remove();
    await guest?.down();
  });

  test('leads where the dump of a CPU in it says', async (t) => {
    guest = await bootTestGuest('entry-code', { cpus: CPUS, install: false });
    const { name } = guest;
    await guest.program('calls');
    await guest.background(`exec calls ${CPUS} >/srv/calls 2>&1`);
    await guest.until('grep -q ready /srv/calls', 120);
    const seen = new Map<string, number>();
    const count = (what: string): unknown => seen.set(what, (seen.get(what) ?? 0) + 1);
    let states = 0;
    while (states < WANTED) {
      const caught = await stopInEntryCode(name);
      await guest.vmcore(dump);
      const kernel = openKernel(dump);
      try {
        await withDebugger(name, async (remote) => {
          for (const cpu of caught) {
            const task = taskAt(kernel, currentTask(kernel, cpu));
            const outcome = registersAtEnd(kernel, cpu, task);
            const where = await placeOf(kernel, remote, cpu);
            const truth = await follow(kernel, remote, cpu);
            t.diagnostic(where);
            compare(outcome, truth, where);
            count(
              outcome.kind === 'lost'
                ? outcome.why
                : `${outcome.kind}, ${'left' in truth ? 'out' : truth.by}`,
            );
            states++;
          }
        });
      } finally {
        kernel.close();
      }
    }
    for (const [what, times] of seen) t.diagnostic(`${times} times: ${what}`);
    const lost = [...seen]
      .filter(([what]) => what.startsWith('was'))
      .reduce((sum, [, times]) => sum + times, 0);
    assert.equal(lost, 0);
  });
});

async function placeOf(kernel: Kernel, remote: GdbRemote, cpu: number): Promise<string> {
  const symbol = kernel.symbolAt((await remote.registers(cpu)).ip ?? 0n);
  return `${symbol?.name}+0x${symbol?.offset.toString(16)}`;
}
