import assert from 'node:assert/strict';
import { mock, suite, test } from 'node:test';
import { x86_64 } from '../../../src/arch/x86-64/index.ts';
import { problemOfRestart, problemOfReturn } from '../../../src/capture/calls/interrupted-call.ts';
import { ownsFutex } from '../../../src/capture/calls/syscall-state.ts';
import { abortRseq, blockedSignals } from '../../../src/capture/thread.ts';
import { untriedSwap } from '../../../src/linux/readers/swap-areas.ts';
import { newFindings } from '../../../src/model/verdict.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { AddressError } from '../../../src/vmcore/errors.ts';
import { threadOf } from '../../criu/processes.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { makeFile } from '../../vmcore/made-file.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';
import { type MadeArea, MadeProcess } from '../../vmcore/made-process.ts';
import { everythingStored, MadeSwapArea } from '../../vmcore/made-swap.ts';
import { HUGE, PRESENT } from '../../vmcore/tables.ts';

const BASE = 0x7f00_0000_0000;
const MIB2 = 2 << 20;

for (const release of releases) {
  suite(`user memory of ${release}`, () => {
    const made = (areas: (kernel: MadeKernel) => readonly MadeArea[]): MadeProcess => {
      const kernel = new MadeKernel(release);
      return new MadeProcess(kernel, areas(kernel));
    };
    const anonymous = () => made(() => [{ start: BASE, pages: 2048 }]);
    /** The bytes as hexadecimal digits, or the kind of another answer. */
    const show = ({ user }: MadeProcess, address: number, length: number): string => {
      const read = user.read(BigInt(address), length);
      return read.kind === 'bytes' ? read.bytes.toString('hex') : read.kind;
    };
    const why = ({ user }: MadeProcess, address: number): string => {
      const read = user.read(BigInt(address), 8);
      return read.kind === 'unknown' ? read.why : read.kind;
    };

    test('is read over the border of two pages, one of them taken away by PROT_NONE or NUMA balancing', () => {
      const process = anonymous();
      process.map(BASE, process.kernel.frame(0x11));
      process.map(BASE + PAGE_SIZE, process.kernel.frame(0x22), 'taken');
      assert.equal(show(process, BASE + PAGE_SIZE - 2, 4), '11112222');
    });

    test('is read in a huge page that was taken away', () => {
      const process = anonymous();
      // The second node's memory begins at a multiple of 2 MiB.
      const first = process.kernel.frame(0x31);
      process.kernel.frame(0x32);
      process.map(BASE + MIB2, first, 'taken', 2);
      assert.equal(show(process, BASE + MIB2 + PAGE_SIZE - 1, 2), '3132');
    });

    test('is zeros where an anonymous area was never touched, and nothing where there is no area', () => {
      const process = anonymous();
      assert.equal(show(process, BASE + 5 * PAGE_SIZE, 4), '00000000');
      assert.equal(show(process, BASE - 4, 4), 'unmapped');
      assert.equal(show(process, BASE - 4, 8), 'unmapped');
      assert.equal(show(process, BASE + 2048 * PAGE_SIZE, 1), 'unmapped');
      assert.deepEqual(process.user.read(0xffff_8880_0000_0000n, 8), { kind: 'unmapped' });
    });

    test('comes from the cache of a mapped file whose pages the tables do not have', () => {
      const process = made((kernel) => [
        {
          start: BASE,
          pages: 8,
          pgoff: 1,
          file: makeFile(kernel, 'ext4', [
            { index: 1, fill: 0xc1, flags: ['uptodate'] },
            { index: 2, fill: 0xc2, flags: ['locked'] },
          ]).file,
        },
      ]);
      assert.equal(show(process, BASE, 2), 'c1c1');
      assert.match(why(process, BASE + PAGE_SIZE), /of a mapped file is not in memory/);
      assert.match(
        why(process, BASE + 2 * PAGE_SIZE),
        /the page at 0x7f0000002000 of a mapped file is not in memory/,
      );
      assert.equal(show(process, BASE + 7 * PAGE_SIZE, 1), 'unmapped');
    });

    test('is zeros in a hole of shared memory', () => {
      const process = made((kernel) => [
        {
          start: BASE,
          pages: 8,
          pgoff: 0,
          file: makeFile(kernel, 'tmpfs', [{ index: 0, fill: 7, flags: ['uptodate', 'dirty'] }]).file,
        },
      ]);
      assert.equal(show(process, BASE + PAGE_SIZE - 1, 2), '0700');
    });

    test('is read in swap, by an entry of a swap area, where that can be read', () => {
      const process = anonymous();
      process.swapOut(BASE, 8);
      process.swapOut(BASE + PAGE_SIZE, 9);
      const swap = new MadeSwapArea(process.kernel);
      swap.use(8);
      swap.use(9, 0x41);
      swap.cache(9, 0x77, ['uptodate', 'dirty']);
      assert.match(why(process, BASE), /is in swap: the dump does not have what is in swap/);
      process.kernel.stored = everythingStored;
      assert.equal(show(process, BASE + PAGE_SIZE - 1, 2), '0877');
      const seen: number[] = [];
      process.user.someMapped(BASE, BASE + 2 * PAGE_SIZE, 0, (bytes) => seen.push(bytes[0] ?? -1) < 0);
      assert.deepEqual(seen, [8, 0x77]);
    });

    test('of a living kernel is not read in swap, and that is seen after a panic', () => {
      const process = anonymous();
      process.kernel.isAlive = true;
      process.swapOut(BASE, 8);
      new MadeSwapArea(process.kernel).use(8);
      const read = process.user.read(BigInt(BASE), 8);
      const page = 'the page at 0x7f0000000000 is in swap';
      if (release === 'debian13')
        assert.deepEqual(read, {
          ...{ kind: 'unknown', isStored: true },
          why: `${page}, which is read after a panic`,
        });
      else
        assert.deepEqual(read, {
          kind: 'unknown',
          why: `${page}: ${untriedSwap(process.kernel.release)}`,
        });
    });

    test('cannot be told where it is in swap, in no dump, in a damaged table, or of the kernel', () => {
      const swapped = anonymous();
      swapped.swapOut(BASE);
      assert.match(why(swapped, BASE), /0x7f0000000000 is in swap: kernel .* has no symbol nr_swapfiles/);
      const absent = anonymous();
      absent.map(BASE, 0x9_0000);
      assert.match(why(absent, BASE), /is not in the dump/);
      const corrupt = anonymous();
      corrupt.map(BASE, corrupt.kernel.frame(0x11));
      mock.method(corrupt.kernel.physical, 'withView', () => {
        throw new AddressError(BASE, 'cannot be read (physical): a page of the dump is damaged');
      });
      assert.match(why(corrupt, BASE), /a page of the dump is damaged/);
      const damaged = anonymous();
      damaged.kernel.tables.set(BigInt(BASE), PRESENT | HUGE, 4);
      assert.match(why(damaged, BASE), /has a leaf at level 4/);
      const special = made(() => [{ start: BASE, pages: 2, isSpecial: true }]);
      assert.match(why(special, BASE), /one of the kernel's own/);
      const lost = anonymous();
      lost.kernel.set('vm_area_struct', lost.areas[0] ?? 0n, 'vm_start', 0);
      assert.match(why(lost, BASE), /not stored under its own range/);
    });
  });

  suite(`what follows from user memory of ${release}`, () => {
    const { registers } = threadOf(1);
    const returning = (ip: bigint) => ({ ip, cx: 0n, flags: 0x246n, r11: 0x246n });
    const page = (): MadeProcess => new MadeProcess(new MadeKernel(release), [{ start: BASE, pages: 2 }]);

    test('a call is made again where the instruction before is `syscall`, also in a page that was taken away', () => {
      const process = page();
      const pfn = process.kernel.frame();
      process.kernel.write(
        process.kernel.physicalToVirtual(pfn * PAGE_SIZE + 0x100),
        Buffer.from([0x0f, 0x05]),
      );
      process.map(BASE, pfn, 'taken');
      assert.equal(
        problemOfReturn(x86_64.systemCalls, process.user, returning(BigInt(BASE + 0x102))),
        undefined,
      );
      assert.match(
        problemOfReturn(x86_64.systemCalls, process.user, returning(BigInt(BASE + 0x104))) ?? '',
        /^there is no syscall instruction where it returns to$/,
      );
    });

    test('a call is not made again where nothing is mapped, or where that cannot be told', () => {
      const process = page();
      assert.match(
        problemOfReturn(x86_64.systemCalls, process.user, returning(0x1000n)) ?? '',
        /^there is no syscall instruction/,
      );
      process.swapOut(BASE);
      assert.match(
        problemOfReturn(x86_64.systemCalls, process.user, returning(BigInt(BASE + 0x102))) ?? '',
        /cannot be told: .* in swap/,
      );
      // The instruction leaves the return address and the flags in other registers, too.
      const left = { ip: BigInt(BASE + 0x102), cx: BigInt(BASE + 0x102), flags: 0x246n, r11: 0x246n };
      assert.equal(problemOfReturn(x86_64.systemCalls, process.user, left), undefined);
      assert.match(
        problemOfReturn(x86_64.systemCalls, process.user, { ...left, r11: 0x202n }) ?? '',
        /cannot be told/,
      );
    });

    test('a thread in front of restart_syscall(2) does not go on, by whichever instruction it makes it', () => {
      const process = page();
      const pfn = process.kernel.frame();
      process.map(BASE, pfn);
      const code = process.kernel.physicalToVirtual(pfn * PAGE_SIZE);
      const [ip, behind] = [BigInt(BASE), BigInt(BASE + 2)];
      const problem = (ax: bigint, cx: bigint): string | undefined =>
        problemOfRestart(x86_64.systemCalls, process.user, { ip, ax, cx });
      process.kernel.write(code, Buffer.from([0x0f, 0x05]));
      assert.match(problem(219n, behind) ?? '', /^was about to go on with a system call that nothing names/);
      assert.deepEqual(
        [problem(219n, 0n), problem(35n, behind), problem(0n, behind)],
        [undefined, undefined, undefined],
      );
      process.kernel.write(code, Buffer.from([0xcd, 0x80]));
      assert.match(problem(0n, 0x1234n) ?? '', /restart_syscall/);
      assert.deepEqual([problem(219n, behind), problem(162n, 0n)], [undefined, undefined]);
      process.swapOut(BASE);
      assert.match(problem(219n, behind) ?? '', /restart_syscall/);
      assert.equal(problem(0n, behind), undefined);
    });

    /**
     * A thread that has not gone to sleep yet in sigsuspend, with the mask that is at the start of the page.
     */
    const suspended = { pid: 7, __state: 0, blocked: 0xf0n, real_blocked: 0n, saved_sigmask: 0x2n } as const;
    const inSigsuspend = { ...registers, origAx: 130n, ax: 0xffff_ffff_ffff_ffdan, di: BigInt(BASE) };

    test('the real signal mask of a thread in sigsuspend comes back, also if the new one is in a page taken away', () => {
      const process = page();
      const pfn = process.kernel.frame();
      process.kernel.write(process.kernel.physicalToVirtual(pfn * PAGE_SIZE), Buffer.from([0xf0]));
      process.map(BASE, pfn, 'taken');
      const owner = { user: process.user, findings: newFindings() };
      const task = { ...suspended, restore_sigmask: false };
      assert.equal(blockedSignals(x86_64, task, inSigsuspend, owner), 0x2n);
      assert.deepEqual(owner.findings, newFindings());
      process.swapOut(BASE);
      blockedSignals(x86_64, task, inSigsuspend, owner);
      assert.match(owner.findings.reasons.join(), /^which signals thread 7, .* cannot be told: .* in swap/);
    });

    test('the owner of a futex is read in a page that was taken away, and is in doubt in one that cannot be', () => {
      const process = page();
      const pfn = process.kernel.frame();
      process.kernel.write(process.kernel.physicalToVirtual(pfn * PAGE_SIZE), Buffer.from([7, 0, 0, 0x80]));
      process.map(BASE, pfn, 'taken');
      assert.equal(ownsFutex({ pid: 7 }, process.user, BigInt(BASE)), true);
      assert.equal(ownsFutex({ pid: 8 }, process.user, BigInt(BASE)), false);
      process.swapOut(BASE);
      assert.equal(ownsFutex({ pid: 7 }, process.user, BigInt(BASE)), undefined);
    });

    /** A section of 16 bytes at `start`, whose abort handler is at 0x9000. */
    const section = (start: bigint): Buffer => {
      const bytes = Buffer.alloc(32);
      [0n, start, 16n, 0x9000n].forEach((value, i) => {
        bytes.writeBigUInt64LE(value, i * 8);
      });
      return bytes;
    };
    const rseq = { pointer: 1n, sizeBytes: 32, signature: 0, criticalSection: BigInt(BASE + 64) };

    test('a restartable sequence is aborted whose descriptor is in a page that was taken away', () => {
      const process = page();
      const pfn = process.kernel.frame();
      process.kernel.write(
        process.kernel.physicalToVirtual(pfn * PAGE_SIZE + 64),
        section(registers.ip - 4n),
      );
      process.map(BASE, pfn, 'taken');
      const owner = { user: process.user, findings: newFindings() };
      assert.equal(abortRseq({ pid: 7 }, owner, rseq, registers).ip, 0x9000n);
      assert.deepEqual(owner.findings, newFindings());
    });

    test('a process is refused of which it cannot be told whether it was in a restartable sequence', () => {
      const process = page();
      process.swapOut(BASE);
      const owner = { user: process.user, findings: newFindings() };
      assert.equal(abortRseq({ pid: 7 }, owner, rseq, registers), registers);
      assert.deepEqual(owner.findings.reasons, [
        `whether thread 7 was in a restartable sequence (rseq) cannot be told: the page at 0x7f0000000000 is in swap: kernel ${process.kernel.release} has no symbol nr_swapfiles`,
      ]);
    });
  });
}
