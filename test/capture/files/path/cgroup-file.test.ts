import assert from 'node:assert/strict';
import { constants } from 'node:fs';
import { suite, test } from 'node:test';
import { checkCgroup } from '../../../../src/capture/files/path/cgroup-file.ts';
import { inodeStruct } from '../../../../src/linux/fs.ts';
import { adviceFor } from '../../../../src/report/advice.ts';
import { fileType } from '../../../../src/system/file-mode.ts';
import { releases } from '../../../vmcore/fixtures.ts';
import { MadeKernel } from '../../../vmcore/made-kernel.ts';

const HOME = 0x1000n;
const { O_WRONLY, O_RDWR } = constants;

for (const release of releases) {
  suite(`open files of cgroups of ${release}`, () => {
    const kernel = new MadeKernel(release);
    const entry = (name: string, parent?: bigint): bigint => {
      const dentry = kernel.allocate('dentry');
      kernel.set('dentry', dentry, 'd_parent', parent ?? dentry);
      const text = kernel.allocate('page');
      kernel.write(text, Buffer.from(`${name}\0`));
      kernel.set('dentry', dentry, 'd_name.len', name.length);
      kernel.set('dentry', dentry, 'd_name.name', text);
      return dentry;
    };
    const root = entry('/');
    const slice = entry('system.slice', root);
    const service = entry('a.service', slice);
    const below = entry('worker', service);

    function check(
      dentry: bigint,
      type: number,
      { name = 'cgroup2', namespace = 0n, flags = 0 } = {},
    ): string {
      const inode = kernel.allocate('inode');
      kernel.set('inode', inode, 'i_mode', type | 0o644);
      const sandboxes = { unitOf: (one: bigint) => (one === HOME ? 'a.service' : undefined) };
      const file = { path: '/cgroup', dentry, inode: kernel.bind(inodeStruct).at(inode), namespace };
      try {
        checkCgroup({ kernel, sandboxes }, { ...file, fileSystem: { name, onDisk: false } }, flags);
        return 'is there';
      } catch (error) {
        return String(error);
      }
    }
    const REFUSED =
      'FileRefusal: has /cgroup open, in a cgroup that is not there yet when it would come back';

    test('come back if they are of the root, which is there first of all', () => {
      assert.equal(check(root, fileType.directory), 'is there');
      assert.equal(check(entry('cgroup.stat', root), fileType.regular), 'is there');
      assert.equal(check(service, fileType.regular, { name: 'sysfs' }), 'is there');
    });

    test('are refused below the root, files and directories, unless they are opened in a sandbox', () => {
      const namespace = HOME;
      for (const directory of [slice, service, below]) {
        assert.equal(check(directory, fileType.directory), REFUSED);
        assert.equal(check(entry('memory.pressure', directory), fileType.regular), REFUSED);
      }
      assert.equal(check(entry('memory.pressure', service), fileType.regular, { namespace }), 'is there');
      assert.equal(check(service, fileType.directory, { namespace }), 'is there');
      assert.match(adviceFor(REFUSED.slice('FileRefusal: '.length)) ?? '', /service manager/);
    });

    test('are refused in a sandbox if they are of another cgroup than the one of its unit', () => {
      for (const directory of [slice, below]) {
        assert.equal(check(directory, fileType.directory, { namespace: HOME }), REFUSED);
        const file = entry('memory.pressure', directory);
        assert.equal(check(file, fileType.regular, { namespace: HOME }), REFUSED);
      }
    });

    test('are refused if they would move processes with more rights than before', () => {
      for (const name of ['cgroup.procs', 'cgroup.threads']) {
        const file = entry(name, service);
        const refused =
          /FileRefusal: has \/cgroup open for writing, by which it would move processes as root/;
        for (const flags of [O_WRONLY, O_RDWR])
          assert.match(check(file, fileType.regular, { namespace: HOME, flags }), refused);
        assert.equal(check(file, fileType.regular, { namespace: HOME }), 'is there');
      }
      assert.notEqual(
        adviceFor('has /cgroup open for writing, by which it would move processes as root'),
        undefined,
      );
    });
  });
}
