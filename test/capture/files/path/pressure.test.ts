import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { hasRead, pressureTrigger } from '../../../../src/capture/files/path/pressure.ts';
import { fmode } from '../../../../src/linux/file.ts';
import { releases } from '../../../vmcore/fixtures.ts';
import { MadeKernel } from '../../../vmcore/made-kernel.ts';

const OWN = '/sys/fs/cgroup/system.slice/a.service/memory.pressure';

for (const release of releases) {
  suite(`files of ${release} that tell of pressure`, () => {
    /** The dentry at a path from the root of its file system. */
    function dentryAt(kernel: MadeKernel, path: string): bigint {
      const root = kernel.allocate('dentry');
      kernel.set('dentry', root, 'd_parent', root);
      return path.split('/').reduce((parent, name) => {
        const [dentry, text] = [kernel.allocate('dentry'), kernel.allocate('page')];
        kernel.write(text, Buffer.from(`${name}\0`));
        kernel.set('dentry', dentry, 'd_parent', parent);
        kernel.set('dentry', dentry, 'd_name.len', name.length);
        kernel.set('dentry', dentry, 'd_name.name', text);
        return dentry;
      }, root);
    }

    /** An open file with a trigger, if one is given, as the two file systems have it. */
    function open(
      fileSystem: string,
      path: string,
      trigger?: Record<string, number | bigint>,
      own = path.replace(/^\/(proc|sys\/fs\/cgroup|srv)\//, ''),
      readTo = 0n,
    ) {
      const kernel = new MadeKernel(release);
      const seq = kernel.allocate('seq_file');
      let place: readonly [string, bigint, string] = ['seq_file', seq, 'private'];
      if (fileSystem === 'cgroup2') {
        const [openFile, context] = [kernel.allocate('kernfs_open_file'), kernel.allocate('cgroup_file_ctx')];
        kernel.set('seq_file', seq, 'private', openFile);
        kernel.set('kernfs_open_file', openFile, 'priv', context);
        place = ['cgroup_file_ctx', context, 'psi.trigger'];
      }
      if (trigger !== undefined) {
        const address = kernel.allocate('psi_trigger');
        for (const [member, value] of Object.entries(trigger))
          kernel.set('psi_trigger', address, member, value);
        kernel.set(...place, address);
      }
      kernel.set('seq_file', seq, 'read_pos', readTo);
      const dentry = dentryAt(kernel, own);
      return (f_mode = fmode.read | fmode.write, f_ep = 0n): string => {
        const file = { f_mode, f_ep, private_data: seq };
        try {
          const found = pressureTrigger(kernel, file, { path, dentry, fileSystem: { name: fileSystem } });
          if (found === undefined) return 'none';
          const read = hasRead(found, 20n) ? ', read in part' : '';
          return `${found.text}${found.isTold ? ', told' : ''}${read}`;
        } catch (error) {
          return String(error);
        }
      };
    }
    /** Memory, some: 150 ms of a second. */
    const some = { state: 2, threshold: 150_000_000n, 'win.size': 1_000_000_000n };

    test('have their triggers, as they were set', () => {
      assert.equal(open('proc', '/proc/pressure/memory', some)(), 'some 150000 1000000');
      assert.equal(open('cgroup2', OWN, { ...some, state: 3 })(), 'full 150000 1000000');
      assert.equal(open('proc', '/proc/pressure/io', { ...some, state: 0 })(), 'some 150000 1000000');
      assert.equal(
        open('proc', '/proc/pressure/cpu', { ...some, state: 4, event: 1 })(),
        'some 150000 1000000, told',
      );
    });

    test('have one as well that was about to go off', () => {
      const about = { ...some, pending_event: 1 };
      assert.equal(open('cgroup2', OWN, about)(), 'some 150000 1000000, told');
    });

    test('have been read in part if reading has led to where they are, not if writing has', () => {
      const own = 'a.service/memory.pressure';
      assert.equal(open('cgroup2', OWN, some, own, 20n)(), 'some 150000 1000000, read in part');
      assert.equal(open('cgroup2', OWN, some, own)(), 'some 150000 1000000');
    });

    test('are told by their own names, wherever they are mounted', () => {
      const [cgroup, system] = ['system.slice/a.service/memory.pressure', 'pressure/memory'];
      assert.equal(open('cgroup2', '/srv/stalls', some, cgroup)(), 'some 150000 1000000');
      assert.equal(open('proc', '/srv/stalls', some, system)(), 'some 150000 1000000');
      assert.equal(open('cgroup2', '/srv/memory.pressure', some, 'a.service/memory.max')(), 'none');
      assert.equal(open('proc', '/proc/pressure/memory', some, 'x/pressure/memory')(), 'none');
    });

    test('have none where none was set, or where nobody can have set one', () => {
      assert.equal(open('cgroup2', OWN)(), 'none');
      assert.equal(open('proc', '/proc/pressure/memory')(), 'none');
      assert.equal(open('proc', '/proc/pressure/memory', some)(fmode.read), 'none');
      assert.equal(open('cgroup2', '/sys/fs/cgroup/cgroup.pressure', some)(), 'none');
      assert.equal(open('ext4', '/srv/pressure/memory', some)(), 'none');
    });

    test('are refused where a trigger cannot be set again, or cannot be right', () => {
      const what = 'FileRefusal: has a trigger for pressure (PSI) on';
      const watched = open('cgroup2', OWN, some)(fmode.read | fmode.write, 1n);
      assert.equal(watched, `${what} ${OWN}, which an epoll watches`);
      assert.equal(open('proc', '/proc/pressure/irq', { ...some, state: 6 })(), `${what} /proc/pressure/irq`);
      for (const wrong of [
        { state: 0 },
        { state: 4 },
        { threshold: 0n },
        { threshold: 150_000_001n },
        { threshold: 2_000_000_000n },
        { 'win.size': 11_000_000_000n },
      ])
        assert.equal(open('cgroup2', OWN, { ...some, ...wrong })(), `${what} ${OWN} that is damaged`);
    });
  });
}
