import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { refuseFileOfCgroup } from '../../../src/capture/files/cgroup-file.ts';
import { type NamedFile, namedFile } from '../../../src/capture/files/named.ts';
import { FileRefusal } from '../../../src/capture/files/refusal.ts';
import { noSandboxes } from '../../../src/capture/sandboxes.ts';
import { pathInFileSystem } from '../../../src/linux/dcache.ts';
import { fdSlots } from '../../../src/linux/fdtable.ts';
import { fileAt } from '../../../src/linux/file.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import { fileType, typeOf } from '../../../src/system/file-mode.ts';
import { openFixture, releases, truthOf } from '../../vmcore/fixtures.ts';

for (const release of releases) {
  suite(`files of cgroups for a process of ${release}`, () => {
    const kernel = openFixture(release);
    const { files } = taskAt(kernel, findTaskByPid(kernel, truthOf(release).kinds.pid) ?? assert.fail());
    /** Its files, as if they were on the file system of cgroups. */
    const named = fdSlots(kernel, files).flatMap(({ file }): NamedFile[] => {
      try {
        const opened = fileAt(kernel, file);
        if (opened === undefined) return [];
        const one = namedFile({ kernel, sandboxes: noSandboxes }, opened.f_mnt, opened.f_dentry);
        return [{ ...one, fileSystem: { ...one.fileSystem, name: 'cgroup2' } }];
      } catch (error) {
        // Pipes, sockets and the like.
        if (error instanceof FileRefusal) return [];
        throw error;
      }
    });
    const depthOf = ({ dentry }: NamedFile): number =>
      pathInFileSystem(kernel, dentry).split('/').filter(Boolean).length;
    const isDirectory = ({ inode }: NamedFile): boolean => typeOf(inode.i_mode) === fileType.directory;
    const look = (file: NamedFile, sandboxes = noSandboxes): string => {
      try {
        refuseFileOfCgroup({ kernel, sandboxes }, file);
        return 'opened again';
      } catch (error) {
        return String(error);
      }
    };

    test('are opened again in the root cgroup, and refused in others, which are not there', () => {
      const inRoot = named.find((file) => depthOf(file) === 1 && !isDirectory(file)) ?? assert.fail();
      assert.equal(look(inRoot), 'opened again');
      const directory = 0o040755;
      const below = { ...inRoot, inode: Object.create(inRoot.inode, { i_mode: { value: directory } }) };
      const why = `FileRefusal: has ${below.path} open, of a cgroup that is made when the system boots`;
      assert.equal(look(below), why);
      assert.equal(look({ ...below, fileSystem: { ...below.fileSystem, name: 'proc' } }), 'opened again');
      // The root cgroup itself.
      const root = named.find((file) => depthOf(file) === 0) ?? assert.fail();
      assert.equal(look(root), 'opened again');
    });

    test('are opened again in a sandbox, whose unit has its cgroup by then', () => {
      for (const file of named) assert.equal(look(file, { unitOf: () => 'web.service' }), 'opened again');
    });
  });
}
