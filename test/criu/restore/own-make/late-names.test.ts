import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import type { FileIdentity } from '../../../../src/model/open-file.ts';
import { SOCK_DGRAM } from '../../../../src/system/abi.ts';
import { inodeOf } from '../../../../src/system/file-handle.ts';
import { inodeGeneration } from '../../../../src/system/inode-generation.ts';
import { checked, libcFunction } from '../../../../src/system/libc.ts';
import { withRoot } from '../../../../src/system/namespaces.ts';
import { AF_UNIX, connect, SOL_SOCKET, SUN_PATH_BYTES } from '../../../../src/system/sockets.ts';
import { needsRoot, OthersDirectory, S_IFSOCK, USER } from './others-directory.ts';

const getsockname = libcFunction<[fd: number, address: Uint8Array, length: Uint8Array]>(
  'int getsockname(int fd, uint8_t *address, uint8_t *length)',
);
const getsockopt = libcFunction<
  [fd: number, level: number, option: number, value: Uint8Array, length: Uint8Array]
>('int getsockopt(int fd, int level, int option, uint8_t *value, uint8_t *length)');
const SO_PEERCRED = 17;

function nameOf(fd: number): string {
  const [address, length] = [Buffer.alloc(112), Buffer.of(112, 0, 0, 0)];
  checked('getsockname', getsockname(fd, address, length));
  return address.subarray(2, length.readUInt32LE()).toString().replace(/\0.*/, '');
}

suite('a socket that is bound when its process is there', { skip: needsRoot }, () => {
  let place: OthersDirectory;
  beforeEach(() => {
    place = new OthersDirectory();
  });
  afterEach(() => place.end());

  const withOpen = <T>(path: string, use: (fd: number) => T): T => {
    const fd = openSync(path, constants.O_RDONLY);
    try {
      return use(fd);
    } finally {
      closeSync(fd);
    }
  };
  /** Connects to a socket. @returns process, user and group that its other end tells of */
  const peerOf = (path: string): number[] => {
    const client = place.make();
    const address = Buffer.concat([Buffer.of(AF_UNIX, 0), Buffer.from(path), Buffer.of(0)]);
    checked('connect', connect(client, address, address.length));
    const [credentials, length] = [Buffer.alloc(12), Buffer.of(12, 0, 0, 0)];
    checked('getsockopt', getsockopt(client, SOL_SOCKET, SO_PEERCRED, credentials, length));
    return [0, 4, 8].map((offset) => credentials.readUInt32LE(offset));
  };

  test('has its name, owner and mode, and is found by its path; so has its directory', async () => {
    const before = statSync(place.path);
    const fd = place.make();
    const planned = place.plannedListener(fd);
    const { problems, resource, left } = await place.bind([planned]);
    assert.deepEqual(problems, []);
    assert.deepEqual(left, ['s']);
    assert.equal(nameOf(fd), place.at('s'));
    const { mode, uid, gid } = lstatSync(place.at('s'));
    assert.deepEqual([mode, uid, gid], [S_IFSOCK | 0o640, USER, USER + 1]);
    const after = statSync(place.path);
    assert.deepEqual([after.mode, after.uid, after.gid], [before.mode, before.uid, before.gid]);
    // The process itself listens, and not this one.
    assert.deepEqual(peerOf(place.at('s')), [planned.pid, USER, USER + 1]);
    assert.deepEqual(resource.finish(true), []);
    assert.ok(existsSync(place.at('s')));
  });

  test('has the name that was bound, though its file is elsewhere', async () => {
    const names: [name: string, path: string][] = [
      ['/var/run/web/s', 'one'],
      ['/var/../run//web/./s', 'two'],
      ['s', 'three'],
      ['below/s', 'four'],
      // No zero byte is behind it.
      [`/${'x'.repeat(SUN_PATH_BYTES - 3)}/s`, 'five'],
    ];
    for (const [name, path] of names) {
      const fd = place.make();
      const { problems, left } = await place.bind([place.planned(fd, { name, path: place.at(path) })]);
      assert.deepEqual(problems, []);
      assert.equal(nameOf(fd), name);
      assert.ok(left.includes(path));
    }
    assert.deepEqual(readdirSync(place.path).toSorted(), ['five', 'four', 'one', 'three', 'two']);
    // The current directory and the root of this program are what they were.
    assert.ok(existsSync(process.cwd()) && existsSync(place.root));
  });

  test('need not listen', async () => {
    const fd = place.make(SOCK_DGRAM);
    assert.deepEqual((await place.bind([place.planned(fd)])).problems, []);
    assert.equal(nameOf(fd), place.at('s'));
  });

  test('is bound in the sandbox of its process, which may have no /proc', async () => {
    const fd = place.make();
    const planned = place.planned(fd);
    const mount = `mount -t tmpfs -o mode=2755,uid=${USER},gid=${USER + 1} tmpfs ${place.path}`;
    const pid = await place.sandboxed(fd, `${mount} && umount -l /proc`);
    const { problems, left } = await place.bind([{ ...planned, pid, fd: 3, backlog: 5 }]);
    assert.deepEqual(problems, []);
    assert.deepEqual(left, []);
    assert.deepEqual(readdirSync(`/proc/${pid}/root${place.path}`), ['s']);
    assert.equal(nameOf(fd), place.at('s'));
  });

  test('is refused if its process cannot listen', async () => {
    const { problems, left } = await place.bind([place.plannedListener(place.make(SOCK_DGRAM))]);
    assert.match(problems.join(), /cannot be bound: listen fails \(ENOTSUP/);
    assert.deepEqual(left, []);
  });

  test('goes with the processes if they do not come back, unless it is another one by now', async () => {
    const [one, two] = [place.make(), place.make()];
    const names = [place.planned(one), place.planned(two, { name: place.at('t'), path: place.at('t') })];
    const { resource } = await place.bind(names);
    unlinkSync(place.at('t'));
    writeFileSync(place.at('t'), '');
    assert.deepEqual(resource.finish(false), []);
    assert.deepEqual(readdirSync(place.path), ['t']);
  });

  test('is not bound behind a link, nor in another directory than it was', async () => {
    const was = place.identityOf(place.path);
    const attempt = async (path: string, directory: FileIdentity, remade?: string[]): Promise<string> => {
      const planned = place.planned(place.make(), { path, directory });
      return (await place.bind([planned], { remade: remade ?? [] })).problems.join();
    };
    symlinkSync('web', join(place.root, 'link'));
    assert.match(await attempt(join(place.root, 'link', 's'), was), /ELOOP/);
    const another = /is another directory, or has another owner or mode$/;
    for (const over of [{ uid: 0 }, { gid: 0 }, { mode: 0o40777 }])
      assert.match(await attempt(place.at('s'), { ...was, ...over }, [place.path]), another);
    const moved = { ...was, onDisk: true, inode: was.inode + 1 };
    assert.match(await attempt(place.at('s'), moved), another);
    assert.match(await attempt(place.at('s'), moved, [place.root]), another);
    // As far as the file system has generations.
    const now = withOpen(place.path, inodeGeneration);
    if (now !== undefined)
      assert.match(await attempt(place.at('s'), { ...was, onDisk: true, generation: now + 1 }), another);
    assert.match(await attempt(join(place.root, 'gone', 's'), was), /ENOENT/);
    assert.deepEqual(readdirSync(place.path), []);
    // A directory that the service manager makes for each start is another one each time.
    assert.equal(await attempt(place.at('s'), moved, [place.path]), '');
  });

  test('takes nothing away that somebody else has put in its place', async () => {
    writeFileSync(place.at('s'), 'precious');
    const on = (over: Partial<FileIdentity>) => [place.planned(place.make(), { identity: place.file(over) })];
    const { problems, left } = await place.bind(on({ onDisk: true, ...inodeOf(-100, place.at('s')) }));
    assert.deepEqual(problems, [
      `the unix socket ${place.at('s')} cannot be bound: something else is at ${place.at('s')}`,
    ]);
    assert.deepEqual(left, ['s']);
    unlinkSync(place.at('s'));
    symlinkSync('/etc/passwd', place.at('s'));
    assert.match((await place.bind(on({}))).problems.join(), /something else is at/);
    assert.ok(lstatSync(place.at('s')).isSymbolicLink());
  });

  test('takes the place of the socket that was there, and of no other', async (t) => {
    place.leave('s');
    const old = inodeOf(-100, place.at('s'));
    if (old === undefined) return t.skip('needs ext4 or XFS');
    const attempt = async (over: Partial<FileIdentity>): Promise<string> =>
      (await place.bind([place.planned(place.make(), { identity: place.file(over) })])).problems.join();
    assert.match(await attempt({ ...old }), /something else is at/);
    assert.match(await attempt({ ...old, onDisk: true, inode: old.inode + 1 }), /something else/);
    assert.match(await attempt({ ...old, onDisk: true, generation: old.generation + 1 }), /something else/);
    assert.deepEqual(inodeOf(-100, place.at('s')), old);
    assert.equal(await attempt({ ...old, onDisk: true }), '');
    assert.notDeepEqual(inodeOf(-100, place.at('s')), old);
    assert.deepEqual(readdirSync(place.path), ['s']);
  });

  test('is refused if its process has no such descriptor', async () => {
    const { problems } = await place.bind([place.planned(9999)]);
    assert.match(problems.join(), /process \d+ has no descriptor 9999/);
  });
});

test('another root is one for a moment, and for what is done then', {
  skip: needsRoot,
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
