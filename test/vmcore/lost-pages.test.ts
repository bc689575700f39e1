import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { RecordingMemory } from '../../lab/fixture/recording-memory.ts';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { VmcoreError } from '../../src/vmcore/errors.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { fixtureMemory, kernelIn, openFixture, releases } from './fixtures.ts';
import { logView, silentViews, viewsOf } from './views.ts';

/**
 * Every page of the log's ring is lost in turn, and of the others one in so many; all of them with
 * OTHERWORLD_FUZZ_RUNS.
 */
const STRIDE = process.env.OTHERWORLD_FUZZ_RUNS === undefined ? 61 : 1;

/** What can have become of a page. */
const losses = {
  absent: (memory: RecordingMemory, frame: number) => memory.lose(frame),
  zeroed: (memory: RecordingMemory, frame: number) =>
    memory.replace(frame * PAGE_SIZE, Buffer.alloc(PAGE_SIZE)),
  set: (memory: RecordingMemory, frame: number) =>
    memory.replace(frame * PAGE_SIZE, Buffer.alloc(PAGE_SIZE, 0xff)),
};

for (const release of releases) {
  describe(`a dump of ${release} that has lost a page`, () => {
    const healthy = openFixture(release);
    const pids = listProcesses(healthy).rows.flatMap(({ pid, hasMemory }) => (hasMemory ? [pid] : []));
    const whole = viewsOf(healthy, pids);
    const wholeLog = logView(healthy);
    // A page of zeros over one says that the process has no memory.
    const mms = pids.slice(-2).map((pid) => {
      const { mm } = taskAt(healthy, findTaskByPid(healthy, pid) ?? 0n);
      return Math.floor(healthy.memory.translate(mm) / PAGE_SIZE);
    });

    function damaged(lose: (memory: RecordingMemory) => void): Kernel | undefined {
      const memory = fixtureMemory(release);
      lose(memory);
      try {
        return kernelIn(release, memory);
      } catch (error) {
        if (error instanceof VmcoreError) return undefined;
        throw error;
      }
    }

    /** Frames that reading something touches, ascending. */
    function framesOf(look: (kernel: Kernel) => unknown): number[] {
      // What every look needs is not what this one is about: it was looked at when the dump was opened.
      const memory = fixtureMemory(release);
      const kernel = kernelIn(release, memory);
      memory.touched.clear();
      look(kernel);
      return [...memory.touched].sort((a, b) => a - b);
    }

    it('is opened anew without a page that opening needs', () => {
      const without = (address: bigint): Kernel | undefined =>
        damaged((memory) => memory.lose(Math.floor(healthy.memory.translate(address) / PAGE_SIZE)));
      assert.equal(without(healthy.symbol('init_uts_ns')), undefined);
      assert.equal(without(healthy.symbol('page_offset_base')), undefined);
      assert.throws(() => without(healthy.symbol('__start_BTF'))?.layouts, VmcoreError);
    });

    for (const [loss, lose] of Object.entries(losses)) {
      it(`shows every record of the log or says that it is missing (${loss})`, () => {
        const frames = framesOf(logView);
        assert.ok(frames.length > 12, `${frames.length} pages`);
        let shown = 0;
        for (const frame of frames) {
          const kernel = damaged((memory) => lose(memory, frame));
          if (kernel === undefined) continue;
          const log = logView(kernel);
          const silent = silentViews({ log: wholeLog }, { log }, 'content');
          assert.deepEqual(silent, [], `page ${frame}`);
          shown += Object.keys(log.rows).length;
        }
        const all = Object.keys(wholeLog.rows).length * frames.length;
        assert.ok(shown > all / 2, `${shown} of ${all}`);
      });

      it(`shows every row of the other views or marks it (${loss})`, () => {
        const all = framesOf((kernel) => viewsOf(kernel, pids));
        const frames = [...all.filter((_, i) => i % STRIDE === 0), ...mms];
        for (const frame of frames) {
          const kernel = damaged((memory) => lose(memory, frame));
          if (kernel === undefined) continue;
          assert.deepEqual(silentViews(whole, viewsOf(kernel, pids), 'rows'), [], `page ${frame}`);
        }
      });
    }
  });
}
