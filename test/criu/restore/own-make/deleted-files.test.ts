import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import {
  DELETED_CONTENT,
  DELETED_FILES,
  type DeletedFilePlan,
  handedInAs,
} from '../../../../src/criu/images/plan/deleted-files.ts';
import { makeDeletedFiles } from '../../../../src/criu/restore/own-make/deleted-files.ts';
import { StagingDirectory } from '../../../../src/criu/restore/own-make/staging-directory.ts';
import type { FileIdentity } from '../../../../src/model/open-file.ts';
import { type NameIn, pathIn } from '../../../../src/system/file-calls.ts';
import { hasAttribute, setAttribute } from '../../../../src/system/xattr.ts';
import { aclFor } from './acl.ts';

const USER = 12345;
const isRoot = process.geteuid?.() === 0;

suite('deleted files that CRIU is handed', { skip: isRoot ? false : 'needs root' }, () => {
  let root = '';
  let directory = '';
  let images = '';
  const at = (name: string): string => join(directory, name);
  const identityOf = (path: string, over: Partial<FileIdentity> = {}): FileIdentity => {
    const { mode, uid, gid, ino: inode, size: sizeBytes, rdev } = lstatSync(path);
    const identity = { fileSystem: 'tmpfs', onDisk: false, inode, generation: 0, mode, uid, gid };
    return { ...identity, sizeBytes, rdev, ...over };
  };
  const planned = (id: number, name: string, over: Partial<DeletedFilePlan> = {}): DeletedFilePlan => ({
    ...{ id, path: at(name), directory: identityOf(directory) },
    identity: identityOf(directory, { mode: 0o100640, uid: USER, gid: USER + 1, sizeBytes: 10_000 }),
    ...{ accessedMicroseconds: 1_500_000, modifiedMicroseconds: 2_500_000 },
    contentOffset: 2,
    chunks: [
      { offset: 0, length: 3 },
      { offset: 8192, length: 4 },
    ],
    ...over,
  });
  /** Looks at a file as soon as it has its former name. */
  let seen: (path: string) => void = () => {};
  const stage = (parent: number): StagingDirectory => {
    class Watched extends StagingDirectory {
      override give(made: NameIn, place: NameIn): void {
        super.give(made, place);
        seen(pathIn(place));
      }
    }
    return new Watched(parent);
  };
  const make = (...plans: readonly DeletedFilePlan[]) => {
    writeFileSync(join(images, DELETED_FILES), JSON.stringify(plans));
    return makeDeletedFiles(images, { firstFd: 5, inside: undefined }, stage);
  };
  beforeEach(() => {
    seen = () => {};
    root = realpathSync(mkdtempSync(join(tmpdir(), 'otherworld-deleted-')));
    [directory, images] = [join(root, 'web'), join(root, 'images')];
    mkdirSync(images);
    writeFileSync(join(images, DELETED_CONTENT), '..onelast');
    mkdirSync(directory);
    chownSync(directory, USER, USER + 1);
    chmodSync(directory, 0o1777);
  });
  afterEach(() => rmSync(root, { recursive: true }));

  test('have their content, owner, mode, times and former name, and none any more', () => {
    const resource = make(planned(42, 'gone'), planned(43, 'too'));
    const [fd = -1] = resource.fds ?? [];
    assert.deepEqual(resource.options, [
      ...['--inherit-fd', `fd[5]:${handedInAs(42)}`],
      ...['--inherit-fd', `fd[6]:${handedInAs(43)}`],
    ]);
    const { mode, uid, gid, nlink, size, mtimeMs, atimeMs } = fstatSync(fd);
    assert.deepEqual([mode, uid, gid, nlink, size], [0o100640, USER, USER + 1, 0, 10_000]);
    assert.deepEqual([atimeMs, mtimeMs], [1500, 2500]);
    assert.deepEqual(readdirSync(directory), []);
    assert.equal(readlinkSync(`/proc/self/fd/${fd}`), `${at('gone')} (deleted)`);
    // CRIU opens it anew, once for each that was open on it.
    const again = openSync(`/proc/self/fd/${fd}`, constants.O_RDWR);
    const content = readFileSync(again);
    assert.equal(content.subarray(0, 4).toString(), 'one\0');
    assert.equal(content.subarray(8191, 8197).toString(), '\0last\0');
    assert.equal(readlinkSync(`/proc/self/fd/${again}`), `${at('gone')} (deleted)`);
    closeSync(again);
    assert.deepEqual(resource.finish(true), []);
    assert.throws(() => fstatSync(fd), /EBADF/);
  });

  test('can be read by nobody but root while they have a name', () => {
    const owners: number[][] = [];
    seen = (path) => {
      const { mode, uid, gid } = lstatSync(path);
      owners.push([mode, uid, gid]);
    };
    const resource = make(planned(42, 'gone'));
    assert.deepEqual(
      owners.map(([mode, uid]) => [mode, uid]),
      [[0o100600, 0]],
    );
    resource.finish(true);
    // One that has got another name stays as it is.
    seen = (path) => linkSync(path, at('other'));
    assert.throws(() => make(planned(42, 'gone')), /somebody has given it another name/);
    const { mode, uid } = lstatSync(at('other'));
    assert.deepEqual([mode, uid], [0o100600, 0]);
    assert.deepEqual(readdirSync(directory), ['other']);
  });

  test('can be programs that run: nobody has them open to write', () => {
    const script = '#!/bin/sh\nexit 7\n';
    writeFileSync(join(images, DELETED_CONTENT), script);
    const identity = identityOf(directory, {
      mode: 0o100755,
      uid: USER,
      gid: USER,
      sizeBytes: script.length,
    });
    const chunks = [{ offset: 0, length: script.length }];
    const resource = make(planned(42, 'gone', { identity, contentOffset: 0, chunks }));
    const [fd = -1] = resource.fds ?? [];
    const [, flags = ''] = /^flags:\t(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? [];
    assert.equal(Number.parseInt(flags, 8) & 3, constants.O_RDONLY);
    assert.equal(spawnSync(`/proc/${process.pid}/fd/${fd}`).status, 7);
    resource.finish(true);
  });

  test('have no ACL that their directory gives', (t) => {
    try {
      setAttribute(directory, 'system.posix_acl_default', aclFor(999));
    } catch {
      return t.skip('needs a file system with ACLs');
    }
    const resource = make(planned(42, 'gone'));
    const [fd = -1] = resource.fds ?? [];
    assert.equal(fstatSync(fd).mode, 0o100640);
    assert.ok(!hasAttribute(fd, 'system.posix_acl_access'));
    resource.finish(true);
  });

  test('leave alone what has their name by now, and say so', () => {
    writeFileSync(at('gone'), 'another');
    const resource = make(planned(42, 'gone'));
    const [fd = -1] = resource.fds ?? [];
    assert.equal(fstatSync(fd).nlink, 0);
    assert.equal(readFileSync(at('gone'), 'utf8'), 'another');
    assert.deepEqual(readdirSync(directory), ['gone']);
    assert.deepEqual(resource.finish(true), [
      `the deleted file ${at('gone')} has another name in /proc: there is a file of that name`,
    ]);
  });

  test('are not made behind a link, nor in another directory than they were', () => {
    symlinkSync('web', join(root, 'link'));
    assert.throws(() => make(planned(1, 'x', { path: join(root, 'link', 'x') })), /cannot be made: .*ELOOP/);
    const other = { ...identityOf(directory), uid: 0 };
    assert.throws(() => make(planned(1, 'x', { directory: other })), /has another owner or mode/);
    // The first one is made then, and is gone.
    const before = readdirSync('/proc/self/fd').length;
    assert.throws(() => make(planned(1, 'x'), planned(2, 'y', { directory: other })), /another owner/);
    assert.equal(readdirSync('/proc/self/fd').length, before);
    assert.deepEqual(readdirSync(directory), []);
  });

  test('are none where the images have none', () => {
    assert.ok(!existsSync(join(images, DELETED_FILES)));
    const resource = makeDeletedFiles(images, { firstFd: 5, inside: undefined });
    assert.deepEqual([resource.fds, resource.options, resource.finish(true)], [[], [], []]);
  });
});
