import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { runningTasks } from '../../src/linux/readers/running-tasks.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { openFixture, patchedDump, releases, word } from './fixtures.ts';

for (const release of releases) {
  const healthy = openFixture(release);
  const online = healthy.symbol('__cpu_online_mask');
  // The fixture has no symbols for the other masks: they are put somewhere in the same page.
  const masks = new Map([
    ['__cpu_active_mask', online ^ 0x400n],
    ['__cpu_possible_mask', online ^ 0x800n],
  ]);

  /** The kernel with these masks, one bit a CPU. */
  function withMasks(masksOf: { online: bigint; active: bigint; possible: bigint }): Kernel {
    const at = (address: bigint, value: bigint) => ({
      physical: healthy.memory.translate(address),
      bytes: word(value),
    });
    const path = patchedDump(release, [
      at(online, masksOf.online),
      at(online ^ 0x400n, masksOf.active),
      at(online ^ 0x800n, masksOf.possible),
    ]);
    return openKernel(path, {
      release: healthy.release,
      buildId: healthy.vmcoreinfo.get('BUILD-ID') ?? '',
      vmcoreinfo: '',
      btf: healthy.layouts.btf.raw,
      symbols: {
        lookup: (name) => masks.get(name) ?? healthy.symbolMaybe(name),
        symbolAt: (address) => healthy.symbolAt(address),
      },
    });
  }

  describe(`CPUs of ${release}`, () => {
    it('that panic() stopped, which it takes off the online mask, count with what they ran and counted', () => {
      const stopped = withMasks({ online: 0b01n, active: 0b11n, possible: 0b11n });
      assert.deepEqual(stopped.cpus, [0, 1]);
      assert.deepEqual(runningTasks(stopped), runningTasks(healthy));
      assert.deepEqual(listProcesses(stopped), listProcesses(healthy));
    });

    it('that were offline do not count, but their counters do', () => {
      const offline = withMasks({ online: 0b01n, active: 0b01n, possible: 0b11n });
      assert.deepEqual(offline.cpus, [0]);
      assert.deepEqual(listProcesses(offline), listProcesses(healthy));
    });
  });
}
