import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { checkCgroup } from '../../../src/capture/files/cgroup-file.ts';
import { inodeStruct } from '../../../src/linux/fs.ts';
import { adviceFor } from '../../../src/report/advice.ts';
import { fileType } from '../../../src/system/file-mode.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';

const HOME = 0x1000n;

for (const release of releases) {
  suite(`open files of cgroups of ${release}`, () => {
    const kernel = new MadeKernel(release);
    const entry = (parent?: bigint): bigint => {
      const dentry = kernel.allocate('dentry');
      kernel.set('dentry', dentry, 'd_parent', parent ?? dentry);
      return dentry;
    };
    const root = entry();
    const slice = entry(root);
    const service = entry(slice);

    function check(dentry: bigint, type: number, { name = 'cgroup2', namespace = 0n } = {}): string {
      const inode = kernel.allocate('inode');
      kernel.set('inode', inode, 'i_mode', type | 0o644);
      const sandboxes = { unitOf: (one: bigint) => (one === HOME ? 'a.service' : undefined) };
      const file = { path: '/cgroup', dentry, inode: kernel.bind(inodeStruct).at(inode), namespace };
      try {
        checkCgroup({ kernel, sandboxes }, { ...file, fileSystem: { name, onDisk: false } });
        return 'is there';
      } catch (error) {
        return String(error);
      }
    }
    const REFUSED =
      'FileRefusal: has /cgroup open, in a cgroup that is not there yet when it would come back';

    test('come back if they are of the root, which is there first of all', () => {
      assert.equal(check(root, fileType.directory), 'is there');
      assert.equal(check(entry(root), fileType.regular), 'is there');
      assert.equal(check(service, fileType.regular, { name: 'sysfs' }), 'is there');
    });

    test('are refused below the root, files and directories, unless they are opened in a sandbox', () => {
      for (const directory of [slice, service]) assert.equal(check(directory, fileType.directory), REFUSED);
      for (const directory of [slice, service])
        assert.equal(check(entry(directory), fileType.regular), REFUSED);
      assert.equal(check(entry(service), fileType.regular, { namespace: HOME }), 'is there');
      assert.match(adviceFor(REFUSED.slice('FileRefusal: '.length)) ?? '', /service manager/);
    });
  });
}
