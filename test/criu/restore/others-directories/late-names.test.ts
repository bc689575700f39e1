import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import type { PlannedName } from '../../../../src/criu/images/plan/restore-plan.ts';
import { bindLate } from '../../../../src/criu/restore/others-directories/late-names.ts';
import type { FileIdentity } from '../../../../src/model/open-file.ts';
import { SOCK_DGRAM, SOCK_STREAM } from '../../../../src/system/abi.ts';
import { inodeOf } from '../../../../src/system/file-handle.ts';
import { inodeGeneration } from '../../../../src/system/inode-generation.ts';
import { checked, libcFunction } from '../../../../src/system/libc.ts';
import { withRoot } from '../../../../src/system/namespaces.ts';
import { AF_UNIX, bind, SOCK_CLOEXEC, socket } from '../../../../src/system/sockets.ts';

const getsockname = libcFunction<[fd: number, address: Uint8Array, length: Uint8Array]>(
  'int getsockname(int fd, uint8_t *address, uint8_t *length)',
);
const USER = 12345;
const S_IFSOCK = 0o140000;
const isRoot = process.geteuid?.() === 0;

function nameOf(fd: number): string {
  const [address, length] = [Buffer.alloc(112), Buffer.of(112, 0, 0, 0)];
  checked('getsockname', getsockname(fd, address, length));
  return address.subarray(2, length.readUInt32LE()).toString().replace(/\0.*/, '');
}

suite('a socket that is bound when its process is there', { skip: isRoot ? false : 'needs root' }, () => {
  let root = '';
  /** Belongs to somebody else than root. */
  let directory = '';
  let fds: number[] = [];
  const at = (name: string): string => join(directory, name);
  const make = (type: number = SOCK_STREAM): number => {
    const fd = checked('socket', socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    fds.push(fd);
    return fd;
  };
  const identityOf = (path: string, over: Partial<FileIdentity> = {}): FileIdentity => {
    const { mode, uid, gid, ino: inode, size: sizeBytes, rdev } = lstatSync(path);
    const identity = { fileSystem: 'tmpfs', onDisk: false, inode, generation: 0, mode, uid, gid };
    return { ...identity, sizeBytes, rdev, ...over };
  };
  const file = (over: Partial<FileIdentity> = {}): FileIdentity =>
    identityOf(directory, { mode: S_IFSOCK | 0o640, uid: USER, gid: USER + 1, ...over });
  const planned = (fd: number, over: Partial<PlannedName> = {}): PlannedName => ({
    ...{ pid: process.pid, fd, name: at('s'), path: at('s') },
    ...{ identity: file(), directory: identityOf(directory), backlog: 5 },
    ...over,
  });
  const withOpen = <T>(path: string, use: (fd: number) => T): T => {
    const fd = openSync(path, constants.O_RDONLY);
    try {
      return use(fd);
    } finally {
      closeSync(fd);
    }
  };
  /** Binds them; nothing may be left of how. */
  const run = (...names: readonly PlannedName[]) => {
    const resource = bindLate(names);
    const problems = resource.ready?.() ?? [];
    return { problems, resource, left: readdirSync(directory) };
  };
  beforeEach(() => {
    root = realpathSync(mkdtempSync(join(tmpdir(), 'otherworld-late-')));
    chmodSync(root, 0o755);
    directory = join(root, 'web');
    mkdirSync(directory);
    chownSync(directory, USER, USER + 1);
    chmodSync(directory, 0o2755);
    fds = [];
  });
  afterEach(() => {
    for (const fd of fds) closeSync(fd);
    rmSync(root, { recursive: true });
  });

  test('has its name, owner and mode, and is found by its path; so has its directory', async () => {
    const before = statSync(directory);
    const fd = make();
    const { problems, resource, left } = run(planned(fd));
    assert.deepEqual(problems, []);
    assert.deepEqual(left, ['s']);
    assert.equal(nameOf(fd), at('s'));
    const { mode, uid, gid } = lstatSync(at('s'));
    assert.deepEqual([mode, uid, gid], [S_IFSOCK | 0o640, USER, USER + 1]);
    const after = statSync(directory);
    assert.deepEqual([after.mode, after.uid, after.gid], [before.mode, before.uid, before.gid]);
    await new Promise<void>((resolve, reject) => {
      const client = connect(at('s'));
      client.on('error', reject);
      client.on('connect', () => client.destroy());
      client.on('close', () => resolve());
    });
    assert.deepEqual(resource.finish(true), []);
    assert.ok(existsSync(at('s')));
  });

  test('has the name that was bound, though its file is elsewhere', () => {
    const names: [name: string, path: string][] = [
      ['/var/run/web/s', 'one'],
      ['/var/../run//web/./s', 'two'],
      ['s', 'three'],
      ['below/s', 'four'],
    ];
    for (const [name, path] of names) {
      const fd = make();
      const { problems, left } = run(planned(fd, { name, path: at(path) }));
      assert.deepEqual(problems, []);
      assert.equal(nameOf(fd), name);
      assert.ok(left.includes(path));
    }
    assert.deepEqual(readdirSync(directory).toSorted(), ['four', 'one', 'three', 'two']);
    // The current directory and the root of this program are what they were.
    assert.ok(existsSync(process.cwd()) && existsSync(root));
  });

  test('need not listen', () => {
    const fd = make(SOCK_DGRAM);
    const { backlog: _, ...rest } = planned(fd);
    assert.deepEqual(run(rest).problems, []);
    assert.equal(nameOf(fd), at('s'));
  });

  test('goes with the processes if they do not come back, unless it is another one by now', () => {
    const { resource } = run(planned(make()), planned(make(), { name: at('t'), path: at('t') }));
    unlinkSync(at('t'));
    writeFileSync(at('t'), '');
    assert.deepEqual(resource.finish(false), []);
    assert.deepEqual(readdirSync(directory), ['t']);
  });

  test('is not bound behind a link, nor in another directory than it was', () => {
    const was = identityOf(directory);
    const refused = (path: string, is: FileIdentity, why: RegExp): void => {
      const { problems } = run(planned(make(), { path, directory: is }));
      assert.match(problems.join(), why);
    };
    symlinkSync('web', join(root, 'link'));
    refused(join(root, 'link', 's'), was, /ELOOP/);
    const another = /is another directory, or has another owner or mode$/;
    for (const over of [{ uid: 0 }, { gid: 0 }, { mode: 0o40777 }])
      refused(at('s'), { ...was, ...over }, another);
    refused(at('s'), { ...was, onDisk: true, inode: was.inode + 1 }, another);
    // As far as the file system has generations.
    const now = withOpen(directory, inodeGeneration);
    if (now !== undefined) refused(at('s'), { ...was, onDisk: true, generation: now + 1 }, another);
    refused(join(root, 'gone', 's'), was, /ENOENT/);
    assert.deepEqual(readdirSync(directory), []);
  });

  test('takes nothing away that somebody else has put in its place', () => {
    writeFileSync(at('s'), 'precious');
    const on = (over: Partial<FileIdentity>) => planned(make(), { identity: file(over) });
    const { problems, left } = run(on({ onDisk: true, ...inodeOf(-100, at('s')) }));
    assert.deepEqual(problems, [
      `the unix socket ${at('s')} cannot be bound: something else is at ${at('s')}`,
    ]);
    assert.deepEqual(left, ['s']);
    unlinkSync(at('s'));
    symlinkSync('/etc/passwd', at('s'));
    assert.match(run(on({})).problems.join(), /something else is at/);
    assert.ok(lstatSync(at('s')).isSymbolicLink());
  });

  test('takes the place of the socket that was there, and of no other', (t) => {
    const address = (name: string) => Buffer.concat([Buffer.of(AF_UNIX, 0), Buffer.from(name), Buffer.of(0)]);
    const leave = (name: string): void => {
      checked('bind', bind(make(), address(at(name)), address(at(name)).length));
    };
    leave('s');
    const old = inodeOf(-100, at('s'));
    if (old === undefined) return t.skip('needs ext4 or XFS');
    const attempt = (over: Partial<FileIdentity>) => run(planned(make(), { identity: file(over) })).problems;
    assert.match(attempt({ ...old }).join(), /something else is at/);
    assert.match(attempt({ ...old, onDisk: true, inode: old.inode + 1 }).join(), /something else/);
    assert.match(attempt({ ...old, onDisk: true, generation: old.generation + 1 }).join(), /something else/);
    assert.deepEqual(inodeOf(-100, at('s')), old);
    assert.deepEqual(attempt({ ...old, onDisk: true }), []);
    assert.notDeepEqual(inodeOf(-100, at('s')), old);
    assert.deepEqual(readdirSync(directory), ['s']);
  });

  test('is refused if its process has no such descriptor', () => {
    assert.match(run(planned(9999)).problems.join(), /process \d+ has no descriptor 9999/);
  });
});

test('another root is one for a moment, and for what is done then', {
  skip: isRoot ? false : 'needs root',
}, () => {
  const before = [process.cwd(), statSync('/').ino, statSync('.').ino];
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-root-'));
  const fd = openSync(directory, constants.O_RDONLY);
  writeFileSync(join(directory, 'inside'), '');
  assert.deepEqual(
    withRoot(fd, () => readdirSync('/')),
    ['inside'],
  );
  assert.throws(
    () =>
      withRoot(fd, () => {
        throw new Error('meant');
      }),
    /meant/,
  );
  assert.deepEqual([process.cwd(), statSync('/').ino, statSync('.').ino], before);
  closeSync(fd);
  rmSync(directory, { recursive: true });
});
