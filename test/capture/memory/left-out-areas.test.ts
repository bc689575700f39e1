import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { FileCapture, MappedFile } from '../../../src/capture/file-capture.ts';
import { MemoryCapture } from '../../../src/capture/memory/memory.ts';
import { VM } from '../../../src/linux/mm.ts';
import { newFindings } from '../../../src/model/verdict.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';
import { type MadeArea, MadeProcess } from '../../vmcore/made-process.ts';
import { MadeSwapArea } from '../../vmcore/made-swap.ts';

const OWN = BigInt(VM.read | VM.write);
const SHARED = OWN | BigInt(VM.mayShare);
const START = 0x10_0000;

/** What the kernel has counted in swap (MM_SWAPENTS). */
function countSwapped(kernel: MadeKernel, { mm }: MadeProcess, pages: number): void {
  if (kernel.hasMember('mm_struct', 'rss_stat.count')) {
    kernel.set('mm_struct', mm.address, 'rss_stat.count[2].counter', pages);
    return;
  }
  const none = kernel.physicalToVirtual(kernel.tables.allocate());
  for (let i = 0; i < 4; i++) kernel.set('mm_struct', mm.address, `rss_stat[${i}].counters`, none);
  kernel.set('mm_struct', mm.address, 'rss_stat[2].count', pages);
}

for (const release of releases) {
  suite(`memory of ${release}`, () => {
    /** One area that is like this, of a process for its procedure alone or of any other. */
    function captured(
      area: Omit<MadeArea, 'start' | 'pages'>,
      forProcedure: boolean,
      {
        file,
        isSwapped = false,
        counted = isSwapped ? 1 : 0,
      }: { file?: MappedFile; isSwapped?: boolean; counted?: number } = {},
    ) {
      const kernel = new MadeKernel(release);
      kernel.variable('init_user_ns', 0n);
      const process = new MadeProcess(kernel, [{ start: START, pages: 2, ...area }]);
      if (isSwapped) {
        new MadeSwapArea(kernel, {});
        process.swapOut(START);
      }
      countSwapped(kernel, process, counted);
      kernel.set('mm_struct', process.mm.address, 'user_ns', kernel.symbol('init_user_ns'));
      const files = {
        exeFile: () => 1,
        mappedFile: () => file ?? assert.fail('nothing is mapped'),
      } as unknown as FileCapture;
      const findings = newFindings();
      const owner = {
        pid: 7,
        threads: [],
        isRunning: false,
        inExec: 0,
        hasLostKeyRights: false,
        memoryId: 1,
      };
      const memory = new MemoryCapture(kernel, files);
      const { vmas } = memory.capture(process.mm.address, {
        ...owner,
        copyOf: undefined,
        findings,
        forProcedure,
      });
      return {
        areas: vmas.map(({ start, end, kind, prot, noReserve }) => [start, end, kind, prot, noReserve]),
        pages: vmas.flatMap(({ runs }) => [...runs]).length,
        reasons: findings.reasons,
        lost: findings.unexpected.map(({ what }) => what),
      };
    }

    const name = 'the memory area 0x100000-0x102000';
    const file = 0x1000n;

    /** Nobody else gets the range, and nothing is there. */
    const hole = [[START, START + 0x2000, 'anonymous', 0, true]];

    /** The area is lost for a procedure, and a reason against any other process. */
    function assertLost(
      area: Parameters<typeof captured>[0],
      why: string,
      how?: Parameters<typeof captured>[2],
      reason = `${name} ${why}`,
    ): void {
      const lost = [`${name} is gone: it ${why}`];
      assert.deepEqual(captured(area, true, how), { areas: hole, pages: 0, reasons: [], lost });
      const other = captured(area, false, how);
      assert.deepEqual([other.reasons, other.lost], [[reason], []]);
    }

    test('that maps a device is left out for a procedure alone', () => {
      assertLost({ file, flags: SHARED | BigInt(VM.pfnMap) }, 'maps a device');
    });

    test('of a file that cannot be kept is left out, unless it is damaged or private', () => {
      const refused = { kind: 'refused', reason: 'has an open [io_uring]' } as const;
      const why = 'maps a file that cannot be kept: has an open [io_uring]';
      assertLost({ file, flags: SHARED }, why, { file: refused }, why);
      assert.deepEqual(
        captured({ file, flags: SHARED }, true, { file: { ...refused, isDamage: true } }).lost,
        [],
      );
      assert.deepEqual(captured({ file, flags: OWN }, true, { file: refused }).lost, []);
    });

    test('of which pages are in swap that nothing can read is left out', () => {
      const { lost, reasons, areas, pages } = captured({ flags: OWN }, true, { isSwapped: true });
      assert.deepEqual([reasons, areas, pages], [[], hole, 0]);
      assert.match(
        lost[0] ?? '',
        /^the memory area \S+ is gone: it has 1 pages in swap, the first at 0x100000/,
      );
      assert.match(captured({ flags: OWN }, false, { isSwapped: true }).reasons[0] ?? '', /pages in swap/);
    });

    test('that is left out still counts: page tables that lost entries are found out', () => {
      const { reasons } = captured({ flags: OWN }, true, { isSwapped: true, counted: 2 });
      assert.deepEqual(reasons, ['has 1 pages in swap in its page tables, but the kernel counted 2']);
    });
  });
}
