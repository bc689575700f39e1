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
import { dirname, join } from 'node:path';
import { after, suite, test } from 'node:test';
import koffi from 'koffi';
import { filesToFind, unwrittenIn } from '../../src/crash-world/capture-stage.ts';
import { inodeGeneration } from '../../src/crash-world/inode-generation.ts';
import { fileSystemUuid } from '../../src/crash-world/write-back/identity.ts';
import { WriteBack } from '../../src/crash-world/write-back/index.ts';
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
  // On a disk, where inodes have generations: /tmp can be in memory.
  const root = mkdtempSync('/var/tmp/write-back-');
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
      directoryDentry: 0n,
      directoryModifiedNanoseconds: 0n,
      links: 1,
      hasAcl: false,
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

  /** Names that memory has besides those of the files that are written back. */
  const others = new Set<string>();
  /** Writes files back, and collects what became of them. */
  function back(...files: UnwrittenFile[]) {
    const known = new Set([...others, ...files.map(({ path }) => path)]);
    const isNamed = ({ path }: UnwrittenFile, name: string) => known.has(join(dirname(path), name));
    const writeBack = new WriteBack({ memory, isNamed, incident: 'ID', root });
    const notes: string[] = [];
    writeBack.write(files, (note) => notes.push(note));
    const outcomes = files.map((file) => ({ path: file.path, ...writeBack.outcomeOf(file) }));
    return {
      writeBack,
      notes,
      problems: outcomes.flatMap(({ path, problem }) => (problem === undefined ? [] : { path, problem })),
      written: outcomes.flatMap(({ path, bytes }) => (bytes === undefined ? [] : path)),
      bytes: outcomes.reduce((sum, { bytes = 0 }) => sum + bytes, 0),
    };
  }
  const content = (path: string) => readFileSync(join(root, path), 'latin1');
  const put = (path: string, text: string) => writeFileSync(join(root, path), text);
  /** Writes back and expects that nothing comes of it but a problem. */
  function refused(file: UnwrittenFile, problem: RegExp): void {
    const { written, bytes, problems, notes } = back(file);
    assert.deepEqual({ written, bytes }, { written: [], bytes: 0 });
    assert.equal(problems.length, 1);
    assert.deepEqual(notes, [`${file.path} ${problems[0]?.problem}`]);
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
    const dirty = listedRuns([page(0, 25)]);
    let directory = '';
    let panic = 0n;

    /** Begins a directory that the dead kernel changed after the disk had it last. */
    function begin(name: string, files: Record<string, string>): void {
      directory = name;
      rmSync(join(root, name), { recursive: true, force: true });
      mkdirSync(join(root, name));
      for (const [file, text] of Object.entries(files)) put(`${name}/${file}`, text);
      diskKnows();
    }
    /** The disk has all that was done to the directory until now. */
    function diskKnows(): void {
      panic = statSync(join(root, directory), { bigint: true }).mtimeNs + 1n;
    }
    /** A file that memory has there. */
    function moved(
      name: string,
      changes: Partial<UnwrittenFile> = {},
      identity: Partial<FileIdentity> = {},
    ): UnwrittenFile {
      const known = { directoryModifiedNanoseconds: panic, dirty, isWhole: true, ...changes };
      const { path, identity: own, ...rest } = unwritten(`/${directory}/${name}`, 10, known);
      return { path, ...rest, identity: { ...own, inode: 1, generation: 1, ...identity } };
    }
    /** By what the dead kernel knew a file that the disk has under this name. */
    const as = (name: string): Pick<FileIdentity, 'inode' | 'generation' | 'sizeBytes' | 'mode'> => {
      const { ino: inode, size: sizeBytes, mode } = statSync(join(root, directory, name));
      const generation = withOpen(join(root, directory, name), inodeGeneration) ?? 0;
      return { inode, generation, sizeBytes, mode };
    };
    const clean = { dirty: listedRuns([]), isWhole: false };
    const names = () => readdirSync(join(root, directory)).toSorted();
    const contents = () => Object.fromEntries(names().map((name) => [name, content(`${directory}/${name}`)]));
    const made = (...files: string[]) =>
      `files that the disk did not have are made anew, without extended attributes: ${files.map((name) => `/${directory}/${name}`).join(', ')}`;
    const displaced = (name: string, aside: string) =>
      `what the disk had as /${directory}/${name} is /${directory}/${aside} now: it was replaced, or had got another name, shortly before the panic`;
    const renamed = (name: string, from: string) =>
      `/${directory}/${name} was /${directory}/${from} on the disk, and was renamed shortly before the panic`;

    test('a file that took the place of another is put there, and the other is kept', () => {
      begin('replaced', { f: 'older' });
      const file = moved('f');
      const { problems, notes, writeBack } = back(file);
      assert.deepEqual([problems, notes], [[], [made('f'), displaced('f', '.f.otherworld-ID')]]);
      assert.deepEqual(contents(), { '.f.otherworld-ID': 'older', f: 'z'.repeat(10) });
      assert.equal(writeBack.outcomeOf(file)?.made?.inode, as('f').inode);
    });

    test('several are, whatever that does to the time of their directory', () => {
      begin('several', { f: 'older', g: 'older' });
      const { problems } = back(moved('f'), moved('g'), moved('h'));
      assert.deepEqual(problems, []);
      assert.deepEqual(names(), ['.f.otherworld-ID', '.g.otherworld-ID', 'f', 'g', 'h']);
    });

    test('a file that was renamed over another has its content from the disk and from memory', () => {
      begin('renamed', { 'f.new': 'x'.repeat(PAGE + 10), f: 'older' });
      const identity = as('f.new');
      const changes = { dirty: listedRuns([page(PAGE, 25)]), isWhole: false };
      const { problems, notes } = back(moved('f', changes, identity));
      assert.deepEqual([problems, notes], [[], [renamed('f', 'f.new'), displaced('f', '.f.otherworld-ID')]]);
      assert.deepEqual(contents(), { '.f.otherworld-ID': 'older', f: 'x'.repeat(PAGE) + 'z'.repeat(10) });
      assert.equal(as('f').inode, identity.inode);
    });

    test('files that moved on by one, as logs do, all have their names, in whatever order they come', () => {
      for (const order of [
        [0, 1, 2],
        [2, 1, 0],
        [1, 0, 2],
        [0, 2, 1],
      ]) {
        begin('logs', { log: 'first', 'log.1': 'second' });
        const files = [moved('log'), moved('log.1', clean, as('log')), moved('log.2', clean, as('log.1'))];
        const { problems, notes } = back(...order.flatMap((i) => files[i] ?? []));
        assert.deepEqual(problems, [], order.join());
        assert.deepEqual(
          notes.toSorted(),
          [made('log'), renamed('log.1', 'log'), renamed('log.2', 'log.1')].toSorted(),
          order.join(),
        );
        assert.deepEqual(contents(), { log: 'z'.repeat(10), 'log.1': 'first', 'log.2': 'second' });
      }
    });

    test('two files that changed places do so', () => {
      begin('swapped', { a: 'one', b: 'two' });
      const files = [moved('a', clean, as('b')), moved('b', clean, as('a'))];
      const { problems, notes } = back(...files);
      assert.deepEqual([problems, notes], [[], [renamed('a', 'b'), renamed('b', 'a')]]);
      assert.deepEqual(contents(), { a: 'two', b: 'one' });
    });

    test('a file that has other rights on the disk, or would get gaps, is not renamed', () => {
      begin('refused', { f: 'good', 'f.new': 'x'.repeat(10) });
      const now = as('f.new');
      const whole = /another file in its place on the disk, and not whole/;
      refused(moved('f', clean, { ...now, mode: 0o100600 }), whole);
      refused(moved('f', clean, { ...now, uid: 1 }), whole);
      refused(moved('f', clean, { ...now, gid: 1 }), whole);
      refused(moved('g', { ...clean, hasAcl: true }, now), /is not on the disk, and not whole/);
      const grown = { ...now, sizeBytes: 2 * PAGE + 10 };
      refused(moved('f', { ...clean, sectors: 24 }, grown), whole);
      refused(moved('f', { isWhole: false, dirty: listedRuns([page(2 * PAGE, 25)]) }, grown), whole);
      assert.deepEqual(contents(), { f: 'good', 'f.new': 'x'.repeat(10) });
      const { problems } = back(moved('f', {}, { ...now, mode: 0o100600 }));
      assert.deepEqual(problems, []);
      assert.equal(as('f').mode, 0o100600);
      assert.equal(content('refused/f'), 'z'.repeat(10));
    });

    test('a name is not taken away before what has it in memory is there', () => {
      for (const names of [
        ['f', 'f~'],
        ['f~', 'f'],
      ]) {
        begin('backup', { f: 'good' });
        const files = names.map((name) =>
          name === 'f' ? moved('f', { hasAcl: true }) : moved('f~', clean, as('f')),
        );
        const { problems } = back(...files);
        assert.match(problems.map(({ problem }) => problem).join(), /had an access control list/);
        assert.match(
          problems.map(({ problem }) => problem).join(),
          /is \/backup\/f on the disk, and stays there/,
        );
        assert.deepEqual(contents(), { f: 'good' });
      }
      begin('link', { conf: 'good' });
      others.add('/link/conf');
      refused(moved('conf.real', clean, as('conf')), /is \/link\/conf on the disk, and stays there/);
      others.clear();
      assert.deepEqual(contents(), { conf: 'good' });
    });

    test('a file that is missed at first is found out to have been renamed later', () => {
      begin('late', { f: 'older', 'g.new': 'x'.repeat(10) });
      const { writeBack } = back(moved('f'));
      const late = moved('g', clean, as('g.new'));
      writeBack.write([late], () => undefined);
      assert.equal(writeBack.outcomeOf(late)?.problem, undefined);
      assert.deepEqual(names(), ['.f.otherworld-ID', 'f', 'g']);
    });

    test('a file system without generations is not believed', { skip: !isRoot }, () => {
      begin('vague', {});
      execFileSync('mount', ['-t', 'tmpfs', 'none', join(root, 'vague')]);
      try {
        put('vague/f', 'older');
        put('vague/f.new', 'x'.repeat(10));
        panic = BigInt(Date.now() + 60_000) * 1_000_000n;
        refused(moved('f'), /another file than before the panic/);
        refused(moved('g', clean, as('f.new')), /not whole/);
      } finally {
        execFileSync('umount', [join(root, 'vague')]);
      }
    });

    test('many files that are made are not all named', () => {
      begin('many', {});
      const { notes } = back(...Array.from({ length: 12 }, (_, i) => moved(`f${i}`)));
      assert.equal(notes.length, 1);
      assert.match(notes[0] ?? '', /\/many\/f9 and 2 more$/);
    });

    test('what a directory gives to new files is taken away from one that had no access control list', {
      skip: !isRoot,
    }, () => {
      begin('inherited', {});
      const entry = (tag: number, permissions: number, id = 0xffff_ffff) => {
        const bytes = Buffer.alloc(8);
        bytes.writeUInt16LE(tag, 0);
        bytes.writeUInt16LE(permissions, 2);
        bytes.writeUInt32LE(id, 4);
        return bytes;
      };
      const acl = Buffer.concat([
        Buffer.from([2, 0, 0, 0]),
        ...[entry(1, 7), entry(2, 7, 1000), entry(4, 5), entry(16, 7), entry(32, 5)],
      ]);
      const path = join(root, 'inherited');
      assert.equal(setxattr(path, 'system.posix_acl_default', acl, acl.length, 0), 0);
      put('inherited/plain', '');
      assert.ok(Number(getxattr(join(path, 'plain'), 'system.posix_acl_access', null, 0)) > 0);
      assert.deepEqual(back(moved('f')).problems, []);
      assert.equal(getxattr(join(path, 'f'), 'system.posix_acl_access', null, 0), -1);
      assert.equal(as('f').mode, 0o100640);
    });

    test('what was set aside is named even if its own turn ends badly', () => {
      begin('badly', { log: 'first' });
      const rotated = moved('log.1', { ...clean, links: 2 }, as('log'));
      const { problems, notes } = back(moved('log'), rotated);
      assert.match(problems[0]?.problem ?? '', /not on the disk under this name, and has others/);
      assert.ok(notes.includes(displaced('log', '.log.otherworld-ID')), notes.join());
      assert.deepEqual(contents(), { '.log.otherworld-ID': 'first', log: 'z'.repeat(10) });
    });

    test('what was set aside is no set-user-ID program any more', { skip: !isRoot }, () => {
      begin('armed', { f: 'older', g: 'older' });
      chmodSync(join(root, 'armed/f'), 0o4755);
      setxattr(join(root, 'armed/g'), 'security.capability', netRaw, netRaw.length, 0);
      const { notes } = back(moved('f', {}, { mode: 0o100755 }), moved('g'));
      for (const name of ['f', 'g']) {
        const aside = `.${name}.otherworld-ID`;
        assert.ok(
          notes.includes(`/armed/${aside} is no set-user-ID program any more, and has no file capabilities`),
          notes.join(),
        );
        assert.equal(getxattr(join(root, 'armed', aside), 'security.capability', null, 0), -1);
        assert.equal(statSync(join(root, 'armed', aside)).mode & 0o6000, 0);
      }
    });

    test('a set-user-ID program that has other names keeps its bit, and that is said', () => {
      begin('names', { g: 'older' });
      chmodSync(join(root, 'names/g'), 0o4755);
      linkSync(join(root, 'names/g'), join(root, 'names/h'));
      diskKnows();
      const { notes } = back(moved('g', {}, { mode: 0o100755 }));
      assert.ok(
        notes.includes(
          '/names/.g.otherworld-ID is a set-user-ID program or has file capabilities, as have its other names',
        ),
        notes.join(),
      );
      assert.equal(as('h').mode, 0o104755);
    });

    test('nothing is moved where memory need not be right', () => {
      begin('still', { f: 'older', g: 'x'.repeat(10) });
      symlinkSync('g', join(root, 'still/link'));
      mkdirSync(join(root, 'still/d'));
      linkSync(join(root, 'still/g'), join(root, 'still/h'));
      diskKnows();
      const mtimeNs = panic - 1n;
      const before = names();
      const another = /another file than before the panic/;
      const { uuid, magic, device } = placeAt(join(root, 'still'));
      const elsewhere = { fileSystem: { uuid, magic: magic + 1, device } };
      refused(moved('f', { directoryModifiedNanoseconds: mtimeNs }), another);
      refused(moved('f', { links: 2 }), another);
      refused(moved('f', {}, { generation: 0 }), another);
      refused(moved('f', { isWhole: false }), /not whole in memory/);
      refused(moved('f', { hasAcl: true }), /had an access control list/);
      refused(moved('f', elsewhere), /on another file system/);
      for (const name of ['d', 'link']) refused(moved(name, {}, { mode: 0o100644 }), another);
      refused(moved('new', { links: 2 }), /not on the disk under this name, and has others/);
      refused(moved('new', { links: 2 }, as('g')), /and has others/);
      refused(moved('new', { isWhole: false }, as('g')), /not whole/);
      const { generation, ...of } = as('f');
      refused(moved('new', { isWhole: false }, { ...of, generation: generation + 1 }), /not whole/);
      refused(moved('new', { ...clean, ...elsewhere }, as('f')), /on another file system/);
      const now = { ...clean, directoryModifiedNanoseconds: mtimeNs };
      refused(moved('new', now, as('f')), /not whole/);
      assert.deepEqual(names(), before);
      assert.equal(content('still/f'), 'older');
    });

    test('nothing is set aside where something has that name', () => {
      begin('taken', { f: 'older', '.f.otherworld-ID': 'kept', 'f.new': 'x'.repeat(10) });
      refused(moved('f'), /cannot be written: EEXIST/);
      assert.deepEqual(contents(), { '.f.otherworld-ID': 'kept', f: 'older', 'f.new': 'x'.repeat(10) });
      const { problems, notes } = back(moved('f', clean, as('f.new')));
      assert.match(problems[0]?.problem ?? '', /f.new cannot be renamed to .f.otherworld-ID: EEXIST/);
      assert.ok(notes.includes(displaced('f', 'f.new')), notes.join());
      assert.deepEqual(contents(), { '.f.otherworld-ID': 'kept', f: 'x'.repeat(10), 'f.new': 'older' });
    });

    test('what is kept of a file with a long name has a shorter one', () => {
      const name = 'ü'.repeat(125);
      begin('long-names', { [name]: 'older' });
      const aside = `.otherworld-ID-${as(name).inode}`;
      assert.deepEqual(back(moved(name)).problems, []);
      assert.deepEqual(names(), [aside, name]);
    });

    test('a group finds the file that was made, under its new inode and whatever path it used', () => {
      begin('found', {});
      const [file, other] = [moved('new'), moved('other', {}, { generation: 2 })];
      const { writeBack } = back(file);
      const found = filesToFind(
        {
          filesToCheck: [
            { path: '/bound/new', identity: file.identity },
            { path: '/found/new', identity: other.identity },
          ],
          unwritten: [file],
        },
        writeBack,
      );
      assert.deepEqual(
        found.map(({ identity }) => identity.inode),
        [as('new').inode, 1],
      );
    });
  });

  test('a group whose file could not be written back does not come back', () => {
    put('log', 'y'.repeat(100));
    const bad = unwritten('/log', 10, {});
    put('data', '');
    const good = unwritten('/data', 3, { dirty: listedRuns([page(0, 0)]) });
    const { writeBack } = back(bad, good);
    const note = () => assert.fail('written already');
    const group = (...files: UnwrittenFile[]) => ({
      processes: [],
      files: { ...noFiles, unwritten: files },
    });
    assert.deepEqual(unwrittenIn(group(good), writeBack, note), []);
    const members = [{ pid: 7, comm: 'db' }];
    const refusals = unwrittenIn({ ...group(bad, good), processes: members }, writeBack, note);
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
    const { writeBack } = back();
    assert.deepEqual(unwrittenIn(group, writeBack, assert.fail), []);
    assert.equal(content('missed'), 'aaa');
    truncateSync(join(root, 'missed'), 0);
    assert.deepEqual(unwrittenIn(group, writeBack, assert.fail), []);
    assert.equal(content('missed'), '');
  });
});
