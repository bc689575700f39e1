import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { mountEach } from '../../../src/crash-world/mounts/mounts.ts';
import {
  makeReadOnly,
  mountTmpfs,
  openPlainDirectory,
  restrictMount,
  wasReadOnly,
} from '../../../src/crash-world/mounts/tmpfs-mount.ts';

const MNT = { nosuid: 0x1, nodev: 0x2, noexec: 0x4, noatime: 0x8, relatime: 0x20, readOnly: 0x40 };
/** Mounts can be made by root where nothing forbids it. */
const mayMount = spawnSync('unshare', ['--mount', 'true']).status === 0;

suite('a tmpfs of the dead world', () => {
  const scratch = realpathSync(mkdtempSync(join(tmpdir(), 'otherworld-tmpfs-')));
  after(() => rmSync(scratch, { recursive: true }));

  test('is not mounted where a symbolic link leads', () => {
    mkdirSync(join(scratch, 'elsewhere'));
    symlinkSync(join(scratch, 'elsewhere'), join(scratch, 'link'));
    for (const path of ['link', 'link/below']) {
      assert.throws(() => mountTmpfs(join(scratch, path), 'size=4096', { mount: 0, superBlock: 0 }), {
        code: 'ENOTDIR',
      });
    }
    assert.deepEqual(readdirSync(join(scratch, 'elsewhere')), []);
  });

  test('that is not mounted is not made read-only either: another file system is at its path', () => {
    symlinkSync('/', join(scratch, 'root'));
    const path = join(scratch, 'root');
    const { mounts, problems } = mountEach([
      { path, data: 'size=4096', flags: { mount: 0x40, superBlock: 0 } },
    ]);
    assert.deepEqual(mounts, []);
    assert.match(problems[0] ?? '', /^tmpfs on .*\/root: ENOTDIR/);
  });

  test('has its directories made', () => {
    closeSync(openPlainDirectory(join(scratch, 'deep/er/est')));
    assert.ok(statSync(join(scratch, 'deep/er/est')).isDirectory());
  });

  /** What /proc says of a mount, its own flags and those of its file system. */
  function flagsAt(path: string): { mount: string[]; superBlock: string[] } {
    const line = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .find((one) => one.split(' ')[4] === path);
    const [own, system] = (line ?? '').split(' - ');
    return {
      mount: own?.split(' ')[5]?.split(',') ?? [],
      superBlock: system?.split(' ')[2]?.split(',') ?? [],
    };
  }

  test('has the flags that it had, and is read-only when its files are made', {
    skip: mayMount ? false : 'needs to mount',
  }, () => {
    const { nosuid, nodev, noexec, noatime, relatime, readOnly } = MNT;
    for (const superBlock of [0, 1]) {
      const path = join(scratch, `flags-${superBlock}`);
      const flags = { mount: nosuid | nodev | relatime | readOnly, superBlock };
      mountTmpfs(path, 'size=65536,mode=0750,uid=7', flags);
      try {
        assert.deepEqual([statSync(path).uid, statSync(path).mode & 0o7777], [7, 0o750]);
        assert.deepEqual(flagsAt(path).mount, ['rw', 'nosuid', 'nodev', 'relatime']);
        assert.ok(flagsAt(path).superBlock.includes('size=64k'));
        writeFileSync(join(path, 'made'), '');
        assert.ok(wasReadOnly(flags));
        makeReadOnly(path, flags);
        assert.throws(() => writeFileSync(join(path, 'more'), ''), { code: 'EROFS' });
        assert.ok(existsSync(join(path, 'made')));
        assert.deepEqual(flagsAt(path).mount, ['ro', 'nosuid', 'nodev', 'relatime']);
        assert.equal(flagsAt(path).superBlock[0], superBlock === 1 ? 'ro' : 'rw');
      } finally {
        spawnSync('umount', [path]);
      }
    }
    const path = join(scratch, 'there');
    mountTmpfs(path, 'size=65536', { mount: nosuid | noatime, superBlock: 0 });
    try {
      restrictMount(path, { mount: nodev | noexec, superBlock: 0 });
      assert.deepEqual(flagsAt(path).mount, ['rw', 'nosuid', 'nodev', 'noexec', 'noatime']);
      assert.ok(!wasReadOnly({ mount: nodev, superBlock: 0 }));
    } finally {
      spawnSync('umount', [path]);
    }
  });
});
