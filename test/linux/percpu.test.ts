import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { rssOf } from '../../src/linux/mm.ts';
import { mmStruct } from '../../src/linux/mm-types.ts';
import { percpuCounterSum } from '../../src/linux/percpu.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { openFixture, releases, truthOf } from '../vmcore/fixtures.ts';

for (const release of releases) {
  const kernel = openFixture(release);
  const { program } = truthOf(release);

  describe(`per-CPU counters of ${release}`, () => {
    it('are the sum over all CPUs', () => {
      if (!kernel.hasMember('mm_struct', 'rss_stat.count')) {
        const mm = kernel.bind(mmStruct).at(taskAt(kernel, findTaskByPid(kernel, program.pid) ?? 0n).mm);
        const anon = percpuCounterSum(kernel, mm.rss_stat + BigInt(kernel.sizeOf('percpu_counter')));
        assert.equal(anon, rssOf(kernel, mm).anon);
        assert.ok(anon >= 1024 + 300);
      }
      const offsets = kernel.cpus.map((cpu) => kernel.perCpu(0n, cpu));
      assert.equal(new Set(offsets).size, kernel.cpus.length);
    });
  });
}
