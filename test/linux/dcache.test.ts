import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { dentryStruct, inodePaths, resolvePath } from '../../src/linux/dcache.ts';
import { fileStruct } from '../../src/linux/fs.ts';
import { mmStruct } from '../../src/linux/mm-types.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { taskAt } from '../../src/linux/sched.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf } from '../vmcore/fixtures.ts';

for (const release of releases) {
  suite(`names of ${release}`, () => {
    const healthy = openFixture(release);
    const executable = (kernel: Kernel) => {
      const task = taskAt(kernel, findTaskByPid(kernel, truthOf(release).program.pid) ?? 0n);
      return kernel.bind(fileStruct).at(kernel.bind(mmStruct).at(task.mm).exe_file);
    };
    const { f_dentry } = executable(healthy);
    const dentry = healthy.bind(dentryStruct).at(f_dentry);
    /** The kernel with another first byte in the name of the program's file. */
    const renamed = (byte: number) =>
      openPatched(release, [
        { physical: healthy.memory.translate(dentry.d_nameAddress), bytes: Buffer.from([byte]) },
      ]);
    const pathIn = (kernel: Kernel) => resolvePath(kernel, executable(kernel).f_mnt, f_dentry).path;

    test('a path comes with the directories above it, the root first', () => {
      const { path, directories } = resolvePath(healthy, executable(healthy).f_mnt, f_dentry);
      assert.equal(directories.length, path.split('/').length - 1);
      assert.equal(directories.at(-1), dentry.d_parent);
      const root = healthy.bind(dentryStruct).at(directories[0] ?? 0n);
      assert.equal(root.d_parent, root.address);
    });

    test("a name that is not UTF-8 is nobody's name", () => {
      assert.equal(pathIn(renamed(0x41)).length, pathIn(healthy).length);
      const kernel = renamed(0xff);
      assert.throws(() => pathIn(kernel), /has a name that is not UTF-8: \$'\/.*\\xff/);
      assert.throws(() => inodePaths(kernel, dentry.d_inode), /not UTF-8/);
    });
  });
}
