import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fdSlot, fdSlots, fdtable, filesStruct } from '../../src/linux/fdtable.ts';
import { forEachTask } from '../../src/linux/pid.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { ContainerError } from '../../src/vmcore/errors.ts';
import { openFixture, openPatched, releases, word } from '../vmcore/fixtures.ts';

/** What points into a `files_struct`, and to what of another one it may have been made to point. */
const FOREIGN = {
  fdt: 'fdtab',
  'fdtab.fd': 'fd_array',
  'fdtab.open_fds': 'open_fds_init',
  'fdtab.close_on_exec': 'close_on_exec_init',
};

describe('the descriptors of a process', () => {
  for (const release of releases) {
    it(`of ${release} are the same one by one, of which each is read alone`, (t) => {
      const kernel = openFixture(release);
      const read = t.mock.method(kernel.memory, 'read');
      for (const task of forEachTask(kernel)) {
        const { files } = taskAt(kernel, task);
        if (files === 0n) continue;
        const all = fdSlots(kernel, files);
        const last = all.at(-1)?.fd ?? 0;
        read.mock.resetCalls();
        const alone = Array.from({ length: last + 3 }, (_, fd) => fdSlot(kernel, files, fd - 1));
        assert.deepEqual(
          alone.filter((slot) => slot !== undefined),
          all,
        );
        for (const { arguments: given } of read.mock.calls) assert.ok((given[1] ?? 0) <= 8);
      }
    });

    it(`of ${release} are not read from another process's table`, () => {
      const kernel = openFixture(release);
      const owners = new Set(
        [...forEachTask(kernel)]
          .map((address) => taskAt(kernel, address))
          .filter(({ files, mm }) => files !== 0n && mm !== 0n)
          .map(({ files }) => files),
      );
      const Files = kernel.bind(filesStruct);
      const small = [...owners].filter(
        (files) => kernel.bind(fdtable).at(Files.at(files).fdt).max_fds === 64,
      );
      const [one = 0n, other = 0n] = small;
      assert.notEqual(other, 0n);
      assert.ok(fdSlots(kernel, one).length > 0);
      const moved = (member: string, value: bigint) => {
        const physical = kernel.memory.translate(one + BigInt(Files.offsetOf(member)));
        return openPatched(release, [{ physical, bytes: word(value) }]);
      };
      for (const [member, foreign] of Object.entries(FOREIGN)) {
        const value = other + BigInt(Files.offsetOf(foreign));
        assert.throws(() => fdSlots(moved(member, value), one), ContainerError, member);
      }
    });
  }
});
