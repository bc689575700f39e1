import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { movePrivateFiles, outsidePath } from '../../../src/crash-world/sandbox/private-directories.ts';
import {
  type MountLine,
  parseMounts,
  sandboxDifferences,
} from '../../../src/crash-world/sandbox/sandbox-mounts.ts';
import { mountLimits, type SandboxMount } from '../../../src/model/sandbox.ts';

const { readOnly, nosuid, nodev, unshared, slave } = mountLimits;
const unit = 'web.service';
const directory = mkdtempSync(join(tmpdir(), 'otherworld-sandbox-'));
after(() => rmSync(directory, { recursive: true }));

const mount = (path: string, over: Partial<SandboxMount & MountLine> = {}): SandboxMount & MountLine => ({
  ...{ path, type: 'ext4', root: '/', limits: 0, options: '', isOwn: false },
  ...{ id: 1, parent: 0, device: '8:1' },
  ...over,
});

suite('the mounts of a sandbox', () => {
  test('are read from mountinfo, without those that are covered', () => {
    const lines = [
      '30 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw',
      '31 30 0:24 / /run rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,size=1k',
      '32 30 0:30 / /two\\040words rw - autofs systemd-1 rw',
      '33 32 0:31 /a /two\\040words ro,noexec,nosymfollow unbindable - tmpfs none rw',
      '34 30 8:1 /usr /usr rw shared:4 master:1 propagate_from:2 - ext4 /dev/vda1 ro',
      '35 30 0:50 / /proc rw - proc proc rw,gid=4,hidepid=invisible,subset=pid',
    ];
    const { noexec, nosymfollow, unbindable } = mountLimits;
    assert.deepEqual(
      parseMounts(lines.join('\n')).map(({ path, type, root, limits, options }) =>
        [path, type, root, limits, options].join(' '),
      ),
      [
        '/ ext4 / 0 ',
        `/run tmpfs / ${nosuid | nodev} `,
        `/two words tmpfs /a ${readOnly | noexec | nosymfollow | unshared | unbindable} `,
        `/usr ext4 /usr ${readOnly | slave} `,
        `/proc proc / ${unshared} gid=4,hidepid=invisible,subset=pid`,
      ],
    );
  });

  test('that a directory above hides are none, whenever they were mounted', () => {
    const shown = [
      '30 1 8:1 / / rw shared:1 - ext4 /dev/vda1 rw',
      '31 30 0:24 / /run rw master:5 - tmpfs tmpfs rw',
      '32 31 0:24 /systemd/inaccessible/dir /run/user ro - tmpfs tmpfs rw',
    ];
    const later = '33 31 0:40 / /run/user/0 rw,nosuid master:9 - tmpfs tmpfs rw';
    assert.deepEqual(parseMounts([...shown, later].join('\n')), parseMounts(shown.join('\n')));
  });

  test('that are a file system of its own, or hide processes, are so again', () => {
    const proc = { type: 'proc', options: 'hidepid=invisible', isOwn: true };
    const was = { unit, mounts: [mount('/proc', proc)], outside: [mount('/proc', { type: 'proc' })] };
    const outside = [mount('/proc', { type: 'proc', device: '0:22' })];
    assert.deepEqual(sandboxDifferences(was, [mount('/proc', { ...proc, device: '0:50' })], outside), []);
    assert.deepEqual(sandboxDifferences(was, outside, outside), [
      'its sandbox has / of proc at /proc now, and had / of proc, hidepid=invisible, of its own',
    ]);
  });

  test('are the same if only the name of a private directory is another', () => {
    const root = (boot: string, end: string): string =>
      `/systemd-private-${boot.repeat(32)}-web.service-${end}/tmp`;
    const was = { unit, mounts: [mount('/tmp', { root: root('a', 'abc123') })], outside: [mount('/tmp')] };
    const now = [mount('/tmp', { root: root('b', 'XyZ789') })];
    assert.deepEqual(sandboxDifferences(was, now, [mount('/tmp')]), []);
    assert.equal(sandboxDifferences(was, [mount('/tmp', { root: '/other' })], [mount('/tmp')]).length, 1);
  });

  test('that the system has as well are none of the sandbox', () => {
    const was = { unit, mounts: [mount('/'), mount('/old')], outside: [mount('/'), mount('/old')] };
    const now = [mount('/'), mount('/new')];
    assert.deepEqual(sandboxDifferences(was, now, now), []);
    assert.equal(sandboxDifferences(was, [mount('/')], [mount('/'), mount('/old')]).length, 1);
    // All is read-only inside, what only this world has too.
    const strict = { unit, mounts: [mount('/', { limits: readOnly })], outside: [mount('/')] };
    const inside = [mount('/', { limits: readOnly }), mount('/new', { limits: readOnly | nodev })];
    const outside = [mount('/'), mount('/new', { limits: nodev })];
    assert.deepEqual(sandboxDifferences(strict, inside, outside), []);
    assert.equal(sandboxDifferences(strict, inside, [mount('/')]).length, 1);
    // The system mounts something otherwise than before.
    const noexec = mountLimits.noexec | readOnly;
    const other = {
      unit,
      mounts: [mount('/run', { limits: noexec })],
      outside: [mount('/run', { limits: mountLimits.noexec })],
    };
    assert.deepEqual(sandboxDifferences(other, [mount('/run', { limits: readOnly })], [mount('/run')]), []);
    assert.equal(sandboxDifferences(other, [mount('/run')], [mount('/run')]).length, 1);
  });

  test('pass on, and get, what is mounted below them as they did', () => {
    const was = { unit, mounts: [mount('/', { limits: slave })], outside: [mount('/')] };
    const now = (limits: number) => sandboxDifferences(was, [mount('/', { limits })], [mount('/')]);
    assert.deepEqual(now(slave), []);
    assert.deepEqual(now(slave | unshared), [
      'its sandbox has / of ext4, unshared, slave at / now, and had / of ext4, slave',
    ]);
    assert.equal(now(0).length, 1);
  });

  test('with credentials of other units are as good with others of them, and not with others of its own', () => {
    const of = (name: string) => mount(`/run/credentials/${name}`, { type: 'ramfs' });
    const was = { unit, mounts: [of('a.service'), of(unit)], outside: [] };
    assert.deepEqual(sandboxDifferences(was, [of('b.service'), of(unit)], [of('b.service'), of(unit)]), []);
    assert.equal(sandboxDifferences(was, [], [of(unit)]).length, 1);
  });

  test('that allow more, or hide less, are named', () => {
    const was = {
      unit,
      mounts: [mount('/'), mount('/usr', { root: '/usr', limits: readOnly })],
      outside: [mount('/')],
    };
    assert.deepEqual(sandboxDifferences(was, [mount('/'), mount('/usr', { root: '/usr' })], [mount('/')]), [
      'its sandbox has /usr of ext4 at /usr now, and had /usr of ext4, read-only',
    ]);
    assert.deepEqual(sandboxDifferences(was, [mount('/')], [mount('/')]), [
      'its sandbox has nothing at /usr now, and had /usr of ext4, read-only',
    ]);
  });
});

suite('private directories', () => {
  const line = (path: string, root: string, device = '8:1') => ({
    ...{ id: 1, parent: 0, device, path, root, type: 'ext4', limits: 0, options: '' },
  });

  test('are found outside below the mount that shows the most of their path', () => {
    const outside = [line('/', '/'), line('/var/tmp', '/scratch'), line('/tmp', '/', '0:40')];
    assert.equal(outsidePath(line('/tmp', '/private/tmp', '0:40'), outside), '/tmp/private/tmp');
    assert.equal(outsidePath(line('/var/tmp', '/scratch/p/tmp'), outside), '/var/tmp/p/tmp');
    assert.equal(outsidePath(line('/tmp', '/p', '0:41'), outside), undefined);
  });

  test('get what the old ones had, which are gone then', () => {
    const [from, to] = ['old', 'new'].map((name) => join(directory, name, 'tmp'));
    if (from === undefined || to === undefined) return;
    for (const path of [from, to]) {
      mkdirSync(path, { recursive: true });
      chmodSync(join(path, '..'), 0o700);
    }
    writeFileSync(join(from, 'session'), 'kept');
    movePrivateFiles([{ path: '/tmp', from }], [line('/tmp', to)], [line('/', '/')]);
    assert.equal(readFileSync(join(to, 'session'), 'utf8'), 'kept');
    assert.ok(!existsSync(join(directory, 'old')));
    movePrivateFiles([{ path: '/tmp', from }], [line('/tmp', to)], [line('/', '/')]);
  });

  test('are not mixed with what somebody else has in the new ones', () => {
    const [from = '', to = ''] = ['joined', 'used'].map((name) => join(directory, name, 'tmp'));
    for (const path of [from, to]) {
      mkdirSync(path, { recursive: true });
      chmodSync(join(path, '..'), 0o700);
    }
    writeFileSync(join(from, 'session'), 'old');
    writeFileSync(join(to, 'session'), "somebody else's");
    assert.throws(
      () => movePrivateFiles([{ path: '/tmp', from }], [line('/tmp', to)], [line('/', '/')]),
      /^Error: the private \/tmp of its sandbox has session already$/,
    );
    assert.equal(readFileSync(join(to, 'session'), 'utf8'), "somebody else's");
  });

  test('are not touched where others than root can get at them', () => {
    const from = join(directory, 'open/tmp');
    mkdirSync(from, { recursive: true });
    chmodSync(join(directory, 'open'), 0o755);
    const places = [[line('/tmp', join(directory, 'new/tmp'))], [line('/', '/')]] as const;
    assert.throws(() => movePrivateFiles([{ path: '/tmp', from }], ...places), /root's alone/);
  });
});
