import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import koffi from 'koffi';
import { filesToFind, outcomesOf, unwrittenIn } from '../../src/crash-world/capture-stage.ts';
import { fileSystemUuid } from '../../src/crash-world/file-system-identity.ts';
import { inodeGeneration } from '../../src/crash-world/inode-generation.ts';
import { inodeKey, writeBack } from '../../src/crash-world/write-back.ts';
import {
  type DirectoryIdentity,
  type FileSystemPlace,
  noFiles,
  type UnwrittenFile,
} from '../../src/model/file.ts';
import type { FileIdentity } from '../../src/model/open-file.ts';
import { listedRuns } from '../../src/model/page-runs.ts';

const PAGE = 4096;
const isRoot = process.getuid?.() === 0;

const libc = koffi.load('libc.so.6');
const setxattr = libc.func(
  'int setxattr(const char *path, const char *name, void *value, size_t size, int flags)',
);
const getxattr = libc.func('long getxattr(const char *path, const char *name, void *value, size_t size)');
/** A `struct vfs_ns_cap_data` of revision 2: CAP_NET_RAW, effective. */
const netRaw = Buffer.from('0100000200200000000000000000000000000000', 'hex');

/** Page N of old memory is full of the letter N (`a` is 0); after byte 10 of page 25 and all over page 24 there are zeros. */
const memory = {
  withView: <T>(physical: number, length: number, use: (bytes: Uint8Array) => T): T =>
    use(
      Uint8Array.from({ length }, (_, i) => {
        const page = Math.floor((physical + i) / PAGE);
        if (page === 24 || (page === 25 && (physical + i) % PAGE >= 10)) return 0;
        return 97 + page;
      }),
    ),
};
const page = (address: number, number: number) => ({ address, pages: 1, physical: number * PAGE });

function withOpen<T>(path: string, use: (fd: number) => T): T {
  const fd = openSync(path, 'r');
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

function directoryAt(path: string): DirectoryIdentity {
  return { inode: statSync(path).ino, generation: withOpen(path, inodeGeneration) ?? 0 };
}

function placeAt(path: string): FileSystemPlace {
  const uuid = withOpen(path, fileSystemUuid);
  return { magic: statfsSync(path).type, uuid, device: statSync(path).dev };
}

suite('writing back', () => {
  const root = mkdtempSync(join(tmpdir(), 'write-back-'));
  after(() => rmSync(root, { recursive: true }));

  /** A file of the dead system as it lies in `root`, or as it will lie there. */
  function unwritten(
    path: string,
    sizeBytes: number,
    changes: Partial<UnwrittenFile> = {},
    identity: Partial<FileIdentity> = {},
  ): UnwrittenFile {
    const stats = statSync(join(root, path), { throwIfNoEntry: false });
    const above = path
      .split('/')
      .slice(0, -1)
      .map((_, i, names) => join(root, names.slice(0, i + 1).join('/')));
    return {
      path,
      directories: above.map(directoryAt),
      directoryModifiedNanoseconds: 0n,
      links: 1,
      fileSystem: placeAt(above.at(-1) ?? root),
      identity: {
        fileSystem: 'ext4',
        onDisk: true,
        inode: stats?.ino ?? 0,
        generation: 0,
        mode: stats?.mode ?? 0o100640,
        uid: process.getuid?.() ?? 0,
        gid: process.getgid?.() ?? 0,
        sizeBytes,
        rdev: 0,
        ...identity,
      },
      sectors: undefined,
      accessedNanoseconds: 1_000_000_000_000_000_001n,
      modifiedNanoseconds: 1_500_000_000_123_456_789n,
      dirty: listedRuns([]),
      clean: listedRuns([]),
      isWhole: false,
      ...changes,
    };
  }

  const world = { memory, incident: 'ID', root };
  const back = (...files: UnwrittenFile[]) => writeBack(files, world);
  const content = (path: string) => readFileSync(join(root, path), 'latin1');
  const put = (path: string, text: string) => writeFileSync(join(root, path), text);
  /** Writes back and expects that nothing comes of it but a problem. */
  function refused(file: UnwrittenFile, problem: RegExp): void {
    const { written, bytes, problems } = back(file);
    assert.deepEqual({ written, bytes }, { written: [], bytes: 0 });
    assert.equal(problems.length, 1);
    assert.match(problems[0]?.problem ?? '', problem);
  }

  test('puts dirty pages in their place, with the size of then', () => {
    put('grown', 'x'.repeat(100));
    const { written, bytes, problems } = back(
      unwritten('/grown', PAGE + 10, { dirty: listedRuns([page(PAGE, 2)]) }),
    );
    assert.deepEqual(problems, []);
    assert.deepEqual(written, ['/grown']);
    assert.equal(bytes, 10);
    assert.equal(content('grown'), 'x'.repeat(100) + '\0'.repeat(PAGE - 100) + 'c'.repeat(10));
  });

  test('sets times to the nanosecond, before 1970 as well', () => {
    put('times', 'a'.repeat(5));
    back(unwritten('/times', 5, { clean: listedRuns([page(0, 0)]) }));
    const { atimeNs, mtimeNs } = statSync(join(root, 'times'), { bigint: true });
    assert.deepEqual([atimeNs, mtimeNs], [1_000_000_000_000_000_001n, 1_500_000_000_123_456_789n]);
    assert.deepEqual(back(unwritten('/times', 5, { clean: listedRuns([page(0, 0)]) })).written, []);
    back(unwritten('/times', 5, { clean: listedRuns([page(0, 0)]), modifiedNanoseconds: -1n }));
    assert.equal(statSync(join(root, 'times'), { bigint: true }).mtimeNs, -1n);
  });

  test('cuts a file where memory has zeros after its end and the disk has not', () => {
    put('cut', 'z'.repeat(100));
    assert.deepEqual(back(unwritten('/cut', 10, { clean: listedRuns([page(0, 25)]) })).problems, []);
    assert.equal(content('cut'), 'z'.repeat(10));
  });

  test('cuts a file of which memory counts fewer blocks', () => {
    put('emptied', 'y'.repeat(3 * PAGE));
    assert.deepEqual(back(unwritten('/emptied', 0, { sectors: 0 })).problems, []);
    assert.equal(content('emptied'), '');
  });

  test('does not cut a file on the word of its size alone', () => {
    const long = 'y'.repeat(3 * PAGE);
    put('long', long);
    for (const changes of [
      {},
      { sectors: 24 },
      { sectors: 23 },
      { clean: listedRuns([page(0, 3)]) },
      { dirty: listedRuns([page(0, 25), page(PAGE, 3)]) },
    ]) {
      refused(unwritten('/long', 10, changes), /has 12288 bytes on the disk and had 10 in memory/);
      assert.equal(content('long'), long);
    }
    put('zeros', '\0'.repeat(100));
    refused(unwritten('/zeros', 50, { clean: listedRuns([page(0, 24)]) }), /no second sign/);
  });

  test('does not make a file longer on the word of its size alone', () => {
    put('short', 'y');
    refused(unwritten('/short', 2 ** 40, { dirty: listedRuns([page(0, 3)]) }), /no second sign/);
    refused(unwritten('/short', 2 ** 40, { sectors: 0 }), /no second sign/);
    assert.equal(content('short'), 'y');
    assert.deepEqual(back(unwritten('/short', 10 * PAGE, { sectors: 80 })).problems, []);
    assert.equal(statSync(join(root, 'short')).size, 10 * PAGE);
  });

  test('writes clean pages only where the disk has something else', () => {
    put('clean', 'a'.repeat(PAGE) + 'x'.repeat(PAGE));
    const { bytes } = back(unwritten('/clean', 2 * PAGE, { clean: listedRuns([page(0, 0), page(PAGE, 1)]) }));
    assert.equal(bytes, PAGE);
    assert.equal(content('clean'), 'a'.repeat(PAGE) + 'b'.repeat(PAGE));
  });

  test('makes a file that the disk does not know yet, if all of it is in memory', () => {
    const dirty = listedRuns([page(0, 0), page(PAGE, 25)]);
    const { problems } = back(unwritten('/new', PAGE + 10, { dirty, isWhole: true }));
    assert.deepEqual(problems, []);
    assert.equal(content('new'), 'a'.repeat(PAGE) + 'z'.repeat(10));
    const { mode, mtimeNs } = statSync(join(root, 'new'), { bigint: true });
    assert.deepEqual([mode, mtimeNs], [0o100640n, 1_500_000_000_123_456_789n]);
  });

  test('does not make a file of which a part may be missing, or a set-user-ID program', () => {
    const whole = { dirty: listedRuns([page(0, 25)]), isWhole: true };
    refused(unwritten('/half', 10, { ...whole, isWhole: false }), /is not on the disk, and not whole/);
    refused(unwritten('/half', 9, whole), /is not on the disk, and not whole/);
    refused(unwritten('/half', 10, whole, { mode: 0o104755 }), /set-user-ID/);
    assert.ok(!existsSync(join(root, 'half')));
  });

  test('makes nothing behind a symbolic link, nor in another directory of the same name', () => {
    const whole = { dirty: listedRuns([page(0, 25)]), isWhole: true };
    for (const name of ['profile.d', 'mine']) mkdirSync(join(root, name));
    put('profile.d/known', '');
    const made = unwritten('/mine/evil.sh', 10, whole);
    const changed = unwritten('/profile.d/known', 10, whole);
    renameSync(join(root, 'mine'), join(root, 'was-mine'));
    symlinkSync('profile.d', join(root, 'mine'));
    refused(made, /is in \/mine, which is a directory no longer/);
    const behind = { ...changed, path: '/mine/known' };
    refused(behind, /is in \/mine, which is a directory no longer/);
    rmSync(join(root, 'mine'));
    refused(made, /is in \/mine, which is not on the disk/);
    mkdirSync(join(root, 'mine'));
    refused(made, /is in \/mine, which is another directory than before the panic/);
    refused({ ...made, directories: [] }, /no path/);
    assert.ok(!existsSync(join(root, 'profile.d/evil.sh')) && !existsSync(join(root, 'mine/evil.sh')));
    assert.equal(content('profile.d/known'), '');
  });

  test('writes to no file through a symbolic link', () => {
    put('target', 'untouched');
    const file = unwritten('/target', 9, { dirty: listedRuns([page(0, 0)]) });
    symlinkSync('target', join(root, 'link'));
    refused({ ...file, path: '/link' }, /another file than before the panic/);
    assert.equal(content('target'), 'untouched');
  });

  test('makes nothing on another file system', () => {
    const whole = { dirty: listedRuns([page(0, 25)]), isWhole: true };
    put('there', 'untouched');
    const { magic, uuid, device } = placeAt(root);
    for (const fileSystem of [
      { magic: magic + 1, uuid, device },
      { magic, uuid: '00112233445566778899aabbccddeeff', device: 1 },
      { magic, uuid: undefined, device: device + 1 },
    ]) {
      refused(unwritten('/elsewhere', 10, { ...whole, fileSystem }), /is on another file system/);
      refused(unwritten('/there', 9, { ...whole, fileSystem }), /is on another file system/);
    }
    assert.ok(!existsSync(join(root, 'elsewhere')));
    assert.equal(content('there'), 'untouched');
    const moved = { magic, uuid, device: uuid === undefined ? device : device + 1 };
    assert.deepEqual(back(unwritten('/elsewhere', 10, { ...whole, fileSystem: moved })).problems, []);
  });

  test('makes nothing where a mount is missing', { skip: !isRoot }, () => {
    const mounted = join(root, 'mounted');
    mkdirSync(mounted);
    execFileSync('mount', ['-t', 'tmpfs', 'none', mounted]);
    let file: UnwrittenFile;
    try {
      file = unwritten('/mounted/new', 10, { dirty: listedRuns([page(0, 25)]), isWhole: true });
    } finally {
      execFileSync('umount', [mounted]);
    }
    refused(file, /is in \/mounted, which is another directory/);
    assert.ok(!existsSync(join(mounted, 'new')));
  });

  test('writes nothing beside file capabilities, and keeps them', { skip: !isRoot }, () => {
    const path = join(root, 'capable');
    put('capable', 'a'.repeat(PAGE));
    assert.equal(setxattr(path, 'security.capability', netRaw, netRaw.length, 0), 0);
    const isCapable = () => Number(getxattr(path, 'security.capability', null, 0)) === netRaw.length;
    assert.deepEqual(back(unwritten('/capable', PAGE, { clean: listedRuns([page(0, 0)]) })).problems, []);
    assert.ok(isCapable());
    refused(unwritten('/capable', PAGE, { dirty: listedRuns([page(0, 1)]) }), /has file capabilities/);
    refused(unwritten('/capable', 0, { sectors: 0 }), /has file capabilities/);
    assert.ok(isCapable());
    assert.equal(content('capable'), 'a'.repeat(PAGE));
  });

  test('writes nothing to a file that has another mode or owner', () => {
    put('secret', 'public');
    const file = unwritten('/secret', 6, { dirty: listedRuns([page(0, 1)]) });
    chmodSync(join(root, 'secret'), 0o666);
    refused(file, /another mode or owner/);
    assert.equal(content('secret'), 'public');
  });

  test('leaves a file alone that is not the one it was', () => {
    put('other', 'untouched');
    const dirty = listedRuns([page(0, 0)]);
    refused(unwritten('/other', 9, { dirty }, { inode: 1 }), /another file than before the panic/);
    const generation = (withOpen(join(root, 'other'), inodeGeneration) ?? 0) + 1;
    refused(unwritten('/other', 9, { dirty }, { generation }), /another file than before the panic/);
    assert.equal(content('other'), 'untouched');
  });

  test('goes on with the other files after one that cannot be written', () => {
    mkdirSync(join(root, 'directory'));
    put('fine', '');
    const { problems, written } = back(
      unwritten('/directory', 9, { dirty: listedRuns([page(0, 0)]) }, { mode: 0o100640 }),
      unwritten('/fine', 3, { dirty: listedRuns([page(0, 0)]) }),
    );
    assert.deepEqual(written, ['/fine']);
    assert.match(problems[0]?.problem ?? '', /another file than before/);
  });

  suite('of which the journal did not have the names', () => {
    const later = BigInt(Date.now() + 60_000) * 1_000_000n;
    const dirty = listedRuns([page(0, 25)]);
    /** In a directory of its own, which the dead kernel changed after the disk had it last. */
    const moved = (
      path: string,
      changes: Partial<UnwrittenFile> = {},
      identity: Partial<FileIdentity> = {},
    ) =>
      unwritten(
        path,
        10,
        { directoryModifiedNanoseconds: later, dirty, isWhole: true, ...changes },
        identity,
      );
    const inodeOf = (path: string) => statSync(join(root, path)).ino;
    const names = (path: string) => readdirSync(join(root, path)).toSorted();

    test('a file that took the place of another is put there, and the other is kept', () => {
      mkdirSync(join(root, 'replaced'));
      put('replaced/f', 'older');
      const file = moved('/replaced/f', {}, { inode: 1 });
      const { problems, notes, outcomes } = back(file);
      assert.deepEqual(problems, []);
      assert.deepEqual(notes, [
        '/replaced/f had replaced another file, which the disk still had: that one is /replaced/.f.otherworld-ID now',
      ]);
      assert.equal(content('replaced/f'), 'z'.repeat(10));
      assert.equal(content('replaced/.f.otherworld-ID'), 'older');
      assert.equal(outcomes.get(inodeKey(file))?.made?.inode, inodeOf('replaced/f'));
    });

    test('a file that was renamed over another has its content from the disk and from memory', () => {
      mkdirSync(join(root, 'renamed'));
      put('renamed/f.new', 'x'.repeat(PAGE + 10));
      put('renamed/f', 'older');
      const identity = { inode: inodeOf('renamed/f.new'), sizeBytes: PAGE + 10 };
      const changes = { dirty: listedRuns([page(PAGE, 25)]), isWhole: false };
      const { problems, notes, outcomes } = back(moved('/renamed/f', changes, identity));
      assert.deepEqual(problems, []);
      assert.equal(notes.length, 1);
      assert.equal(content('renamed/f'), 'x'.repeat(PAGE) + 'z'.repeat(10));
      assert.equal(inodeOf('renamed/f'), identity.inode);
      assert.deepEqual(names('renamed'), ['.f.otherworld-ID', 'f']);
      assert.deepEqual([...outcomes.values()], [{ made: undefined }]);
    });

    test('files that moved on by one, as logs do, all have their names, in whatever order they come', () => {
      for (const order of [
        [0, 1, 2],
        [2, 1, 0],
        [1, 0, 2],
        [0, 2, 1],
      ]) {
        rmSync(join(root, 'logs'), { recursive: true, force: true });
        mkdirSync(join(root, 'logs'));
        put('logs/log', 'first');
        put('logs/log.1', 'second');
        const clean = { dirty: listedRuns([]), isWhole: false };
        const of = (name: string, now: string, size: number) =>
          moved(`/logs/${now}`, clean, { inode: inodeOf(`logs/${name}`), sizeBytes: size, mode: 0o100644 });
        const files = [moved('/logs/log', {}, { inode: 1 }), of('log', 'log.1', 5), of('log.1', 'log.2', 6)];
        const { problems, notes } = back(...order.flatMap((i) => files[i] ?? []));
        assert.deepEqual([problems, notes], [[], []], order.join());
        assert.deepEqual(names('logs'), ['log', 'log.1', 'log.2']);
        assert.deepEqual(
          names('logs').map((name) => content(`logs/${name}`)),
          ['z'.repeat(10), 'first', 'second'],
        );
      }
    });

    test('nothing is moved if the disk has the directory of the panic, or the file has more names', () => {
      mkdirSync(join(root, 'still'));
      put('still/f', 'older');
      put('still/g', 'x'.repeat(10));
      const { mtimeNs } = statSync(join(root, 'still'), { bigint: true });
      const another = /another file than before the panic/;
      refused(moved('/still/f', { directoryModifiedNanoseconds: mtimeNs }, { inode: 1 }), another);
      refused(moved('/still/f', { links: 2 }, { inode: 1 }), another);
      refused(moved('/still/f', { isWhole: false }, { inode: 1 }), /not whole in memory/);
      refused(moved('/still/new', { links: 2 }), /not on the disk under this name, and has others/);
      refused(moved('/still/new', { links: 2 }, { inode: inodeOf('still/g') }), /and has others/);
      linkSync(join(root, 'still/g'), join(root, 'still/h'));
      refused(moved('/still/new', { isWhole: false }, { inode: inodeOf('still/g') }), /not whole/);
      mkdirSync(join(root, 'still/d'));
      refused(moved('/still/d', {}, { inode: 1, mode: 0o100644 }), another);
      assert.deepEqual(names('still'), ['d', 'f', 'g', 'h']);
      assert.equal(content('still/f'), 'older');
    });

    test('what is kept of a file with a long name has a shorter one', () => {
      mkdirSync(join(root, 'long-names'));
      const name = 'ü'.repeat(125);
      put(`long-names/${name}`, 'older');
      const aside = `.otherworld-ID-${inodeOf(`long-names/${name}`)}`;
      assert.deepEqual(back(moved(`/long-names/${name}`, {}, { inode: 1 })).problems, []);
      assert.deepEqual(names('long-names'), [aside, name]);
    });

    test('a group finds the file that was made, under its new inode', () => {
      const file = moved('/brand-new');
      const { outcomes } = back(file);
      const [found] = filesToFind(
        { filesToCheck: [{ path: '/brand-new', identity: file.identity }], unwritten: [file] },
        outcomes,
      );
      assert.equal(found?.identity.inode, inodeOf('brand-new'));
      assert.notEqual(found?.identity.inode, file.identity.inode);
    });
  });

  test('a group whose file could not be written back does not come back', () => {
    put('log', 'y'.repeat(100));
    const bad = unwritten('/log', 10, {});
    put('data', '');
    const good = unwritten('/data', 3, { dirty: listedRuns([page(0, 0)]) });
    const { outcomes } = back(bad, good);
    assert.equal(outcomes.get(inodeKey(good))?.problem, undefined);
    const group = (...files: UnwrittenFile[]) => ({
      processes: [],
      files: { ...noFiles, unwritten: files },
    });
    assert.deepEqual(unwrittenIn(group(good), outcomes), []);
    const members = [{ pid: 7, comm: 'db' }];
    const refusals = unwrittenIn({ ...group(bad, good), processes: members }, outcomes);
    assert.deepEqual(
      refusals.map(({ pid }) => pid),
      [7],
    );
    assert.match(
      refusals[0]?.reasons.join() ?? '',
      /^uses \/log, which has 100 bytes on the disk and had 10/,
    );
  });

  test('a file that writing back did not come upon is written when a group uses it, and once only', () => {
    put('missed', '');
    const file = unwritten('/missed', 3, { dirty: listedRuns([page(0, 0)]) });
    const group = { processes: [], files: { ...noFiles, unwritten: [file] } };
    const { outcomes } = outcomesOf(group.files, new Map(), world);
    assert.deepEqual(unwrittenIn(group, outcomes), []);
    assert.equal(content('missed'), 'aaa');
    truncateSync(join(root, 'missed'), 0);
    assert.deepEqual(unwrittenIn(group, outcomesOf(group.files, outcomes, world).outcomes), []);
    assert.equal(content('missed'), '');
  });
});
