import assert from 'node:assert/strict';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, beforeEach, suite, test } from 'node:test';
import {
  makeTmpfs,
  noteStalePidFiles,
  preparationBytes,
  withinLimit,
  withoutThoseOf,
} from '../../../src/crash-world/mounts/saved-tmpfs.ts';
import { writePreparation } from '../../../src/criu/images/files/preparation.ts';
import { ImageDirectory, type PageSource } from '../../../src/criu/images/image.ts';
import type { FileToMake, TmpfsFiles } from '../../../src/model/file.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { libcFunction } from '../../../src/system/libc.ts';
import { sharedAcl } from '../acl.ts';

const getxattr = libcFunction<[path: string, name: string, value: Uint8Array, size: number]>(
  'long getxattr(const char *path, const char *name, void *value, size_t size)',
);

/** Every byte of old memory is the low byte of its page's number. */
const source: PageSource = {
  writeRuns: (fd, runs) =>
    runs.reduce((sum, { physical, length }) => {
      return sum + writeSync(fd, Buffer.alloc(length, Math.floor(physical / 4096)));
    }, 0),
};

suite('files on tmpfs', () => {
  const scratch = mkdtempSync('/dev/shm/memory-files-');
  const own = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  let place: string;
  let number = 0;
  after(() => rmSync(scratch, { recursive: true }));
  beforeEach(() => {
    place = join(scratch, `tmpfs-${number++}`);
    mkdirSync(place);
  });

  test('that a group makes itself are left to it, and not others of the same path in a sandbox', () => {
    const one = file('one', 0, 1);
    const inside = { ...one, identity: { ...one.identity, inode: 2 } };
    const files = { directoriesToMake: [], filesToMake: [one], symlinksToMake: [], namesToMake: [] };
    assert.deepEqual(withoutThoseOf([{ files: { filesToMake: [one] } }], files).filesToMake, []);
    assert.deepEqual(withoutThoseOf([{ files: { filesToMake: [inside] } }], files).filesToMake, [one]);
    const sameNumber = { ...one, identity: { ...one.identity, generation: 7 } };
    assert.deepEqual(withoutThoseOf([{ files: { filesToMake: [sameNumber] } }], files).filesToMake, [one]);
  });

  function file(name: string, page: number, sizeBytes: number): FileToMake {
    return {
      path: join(place, name),
      identity: {
        fileSystem: 'tmpfs',
        onDisk: false,
        inode: 1,
        generation: 0,
        mode: 0o100640,
        ...own,
        sizeBytes,
        rdev: 0,
      },
      accessedMicroseconds: 1e6,
      modifiedMicroseconds: 2e6,
      attributes: [],
      runs: listedRuns([{ address: 0, pages: Math.ceil(sizeBytes / 4096), physical: page * 4096 }]),
    };
  }

  const none = { directoriesToMake: [], filesToMake: [], symlinksToMake: [], namesToMake: [] };

  function saved(files: Partial<TmpfsFiles>): { directory: string } {
    const images = new ImageDirectory(join(scratch, `images-${number++}`));
    writePreparation({ ...none, ...files }, images, source);
    images.close();
    return { directory: images.path };
  }

  test('are made with all their names, and nothing is left of the saved ones', () => {
    const directory = join(place, 'deep');
    const one = saved({
      directoriesToMake: [{ path: directory, mode: 0o1711, ...own, attributes: [] }],
      filesToMake: [file('deep/first', 3, 5000), file('second', 4, 10)],
      symlinksToMake: [{ path: join(place, 'link'), target: 'deep/first', ...own }],
      namesToMake: [{ path: join(place, 'other'), of: join(place, 'deep/first') }],
    });
    const notes: string[] = [];
    makeTmpfs(one, 1 << 20, 'failed', { notes });
    assert.deepEqual(notes, []);
    assert.equal(statSync(directory).mode & 0o7777, 0o1711);
    assert.deepEqual(readFileSync(join(place, 'deep/first')), Buffer.alloc(5000, 3));
    assert.deepEqual(readFileSync(join(place, 'second')), Buffer.alloc(10, 4));
    assert.equal(readlinkSync(join(place, 'link')), 'deep/first');
    assert.equal(statSync(join(place, 'other')).ino, statSync(join(place, 'deep/first')).ino);
    assert.ok(!existsSync(one.directory));
  });

  test('that are there already are left alone, and named', () => {
    writeFileSync(join(place, 'taken'), 'by somebody');
    const notes: string[] = [];
    makeTmpfs(saved({ filesToMake: [file('taken', 3, 5)] }), 1 << 20, 'failed', { notes });
    assert.match(notes[0] ?? '', /^lost from tmpfs: .*taken: is there already$/);
    assert.equal(readFileSync(join(place, 'taken'), 'utf8'), 'by somebody');
  });

  test('a directory that a mount needed gets its own mode; one that is mounted keeps it', () => {
    mkdirSync(join(place, 'private'));
    const one = { path: join(place, 'private'), mode: 0o700, ...own, attributes: [] };
    const mounted = { path: '/dev/shm', mode: 0o700, ...own, attributes: [] };
    const { mode } = statSync('/dev/shm');
    const notes: string[] = [];
    makeTmpfs(saved({ directoriesToMake: [one, mounted] }), 0, 'failed', { notes });
    assert.deepEqual(notes, []);
    assert.equal(statSync(one.path).mode & 0o7777, 0o700);
    assert.equal(statSync('/dev/shm').mode, mode);
  });

  test('inherit nothing from the default ACL of their directory', () => {
    const value = sharedAcl(65534);
    const parent = join(place, 'shared');
    const attributes = [{ name: 'system.posix_acl_default', value }];
    const one = saved({
      directoriesToMake: [
        { path: parent, mode: 0o755, ...own, attributes },
        { path: join(parent, 'inner'), mode: 0o750, ...own, attributes: [] },
      ],
      filesToMake: [file('shared/file', 3, 5)],
    });
    const notes: string[] = [];
    makeTmpfs(one, 1 << 20, 'failed', { notes });
    assert.deepEqual(notes, []);
    const found = Buffer.alloc(1024);
    const acl = (path: string, kind: string) =>
      getxattr(path, `system.posix_acl_${kind}`, found, found.length);
    assert.equal(acl(parent, 'default'), value.length);
    for (const path of [join(parent, 'inner'), join(parent, 'file')])
      for (const kind of ['access', 'default']) assert.ok(acl(path, kind) <= 0, `${path} ${kind}`);
    assert.equal(statSync(join(parent, 'file')).mode & 0o7777, 0o640);
  });

  test('of more than the configuration allows the smallest are kept', () => {
    const filesToMake = [file('c', 1, 2 ** 20), file('a', 1, 4096), file('b', 1, 2 ** 20 - 4096)];
    const room = { bytesForImages: 2 ** 30, directory: '/images' };
    const { files, problems } = withinLimit({ ...none, filesToMake }, 1, room);
    assert.deepEqual(
      files.filesToMake.map(({ path }) => path.at(-1)),
      ['a', 'b'],
    );
    assert.match(problems.join(), /c: more than tmpfs\.max-mebibytes \(1\) in all$/);
    assert.equal(withinLimit({ ...none, filesToMake }, 0, room).files.filesToMake.length, 0);
  });

  test('of more than the images have left free the smallest are kept, and the others named', () => {
    const filesToMake = [file('c', 1, 2 ** 20), file('a', 1, 4096), file('b', 1, 2 ** 20 - 4096)];
    const room = { bytesForImages: 2 ** 20 + 4096, directory: '/images' };
    const { files, problems } = withinLimit({ ...none, filesToMake }, 1024, room);
    assert.deepEqual(
      files.filesToMake.map(({ path }) => path.at(-1)),
      ['a', 'b'],
    );
    assert.match(problems.join(), /c: no room for it in \/images$/);
  });

  test('take room for their names and attributes as well, also if they are empty', () => {
    const attributes = [{ name: 'user.x', value: Buffer.alloc(3000, 255) }];
    const deep = 'd'.repeat(200);
    const many = Array.from({ length: 500 }, (_, i) => ({ ...file(`${deep}\u0001${i}`, 0, 0), attributes }));
    const files = {
      directoriesToMake: [{ path: join(place, deep), mode: 0o1711, ...own, attributes }],
      filesToMake: many,
      symlinksToMake: [{ path: join(place, 'link'), target: '\u0001'.repeat(900), ...own }],
      namesToMake: [{ path: join(place, 'other'), of: many[0]!.path }],
    };
    const { directory } = saved(files);
    const written = statSync(join(directory, 'preparation.json')).size;
    const told = preparationBytes(files);
    assert.ok(written <= told && told < 1.5 * written, `${written} bytes written, ${told} told`);
    const half = withinLimit(files, 1024, { bytesForImages: told / 2, directory: '/images' });
    assert.ok(half.files.filesToMake.length > 200 && half.files.filesToMake.length < 260);
    assert.ok(preparationBytes(half.files) <= told / 2);
    const nothing = withinLimit(files, 1024, { bytesForImages: 1000, directory: '/images' });
    assert.equal(preparationBytes(nothing.files), 0);
    assert.deepEqual(nothing.problems, [
      '3 directories and names, and 500 files: no room for them in /images',
    ]);
  });

  test('that do not fit into memory are named and kept, and their names with them; others are made', () => {
    const files = {
      filesToMake: [file('large', 3, 9000), file('small', 4, 1000)],
      namesToMake: [{ path: join(place, 'other'), of: join(place, 'large') }],
    };
    const one = saved(files);
    const notes: string[] = [];
    makeTmpfs(one, 10000, 'failed', { notes });
    assert.match(notes[0] ?? '', /^lost from tmpfs: .*large: its 14336 bytes do not fit into the memory/);
    assert.match(notes[1] ?? '', /^lost from tmpfs: .*other: ENOENT/);
    assert.equal(notes[2], `what did not come back of tmpfs is in ${one.directory}`);
    assert.deepEqual(readdirSync(place), ['small']);
    assert.ok(existsSync(join(one.directory, 'made.raw')));
    const never = saved(files);
    makeTmpfs(never, 0, 'never', { notes });
    assert.ok(!existsSync(never.directory));
  });

  test('more than twenty that are lost are counted', () => {
    const notes: string[] = [];
    const filesToMake = Array.from({ length: 25 }, (_, i) => file(`${i}`, 1, 100));
    makeTmpfs(saved({ filesToMake }), 0, 'failed', { notes });
    assert.equal(notes.length, 22);
    assert.equal(notes[20], 'lost from tmpfs: 5 more files');
  });

  test('a half-made file is removed again', () => {
    const one = saved({ filesToMake: [file('cut', 3, 5000)] });
    writeFileSync(join(one.directory, 'made.raw'), 'short');
    const notes: string[] = [];
    makeTmpfs(one, 1 << 20, 'failed', { notes });
    assert.match(notes[0] ?? '', /cut: the content in the images is too short/);
    assert.equal(lstatSync(join(place, 'cut'), { throwIfNoEntry: false }), undefined);
  });

  test('that name a process which did not come back are named', () => {
    const pidFiles = [
      { path: '/run/alive', pid: 10 },
      { path: '/run/dead', pid: 11 },
    ];
    const notes: string[] = [];
    noteStalePidFiles({ pidFiles }, new Set([10]), { notes });
    assert.deepEqual(notes, ['/run/dead names process 11, which did not come back']);
  });
});
