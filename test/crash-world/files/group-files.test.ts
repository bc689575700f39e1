import assert from 'node:assert/strict';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { notePaths } from '../../../src/crash-world/files/found-file.ts';
import { checkNoted, makeAndCheckFiles } from '../../../src/crash-world/files/group-files.ts';
import { writePreparation } from '../../../src/criu/images/files/preparation.ts';
import { ImageDirectory, type PageSource } from '../../../src/criu/images/image.ts';
import { type GroupFiles, noFiles } from '../../../src/model/file.ts';
import type { FileIdentity } from '../../../src/model/open-file.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { libcFunction } from '../../../src/system/libc.ts';
import { socketOf } from '../../criu/unix-sockets.ts';

const getxattr = libcFunction<[path: string, name: string, value: Uint8Array, size: number]>(
  'long getxattr(const char *path, const char *name, void *value, size_t size)',
);

/** Every byte of old memory is the low byte of its page's number. */
const source: PageSource = {
  writeRuns: (fd, runs) =>
    runs.reduce((sum, { physical, length }) => {
      const bytes = Buffer.from(Array.from({ length }, (_, i) => Math.floor((physical + i) / 4096)));
      return sum + writeSync(fd, bytes);
    }, 0),
};

suite('preparing files', () => {
  const scratch = mkdtempSync('/dev/shm/prepare-');
  const onDisk = mkdtempSync(join(tmpdir(), 'prepare-'));
  after(() => {
    for (const directory of [scratch, onDisk]) rmSync(directory, { recursive: true });
  });
  const own = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const plain = { accessedMicroseconds: 1e6, modifiedMicroseconds: 2e6, attributes: [] };
  let number = 0;

  function identity(changes: Partial<FileIdentity>): FileIdentity {
    return {
      fileSystem: 'tmpfs',
      onDisk: false,
      inode: 1,
      generation: 0,
      mode: 0o100600,
      ...own,
      sizeBytes: 0,
      rdev: 0,
      ...changes,
    };
  }

  function written(files: Partial<GroupFiles>): string {
    const images = new ImageDirectory(join(scratch, `images-${number++}`));
    writePreparation({ ...noFiles, ...files }, images, source);
    images.close();
    return images.path;
  }

  test('makes directories and sparse files with owner, mode and content', () => {
    const [directory, path] = [join(scratch, 'deep'), join(scratch, 'deep', 'file')];
    const images = written({
      directoriesToMake: [{ path: directory, mode: 0o1711, ...own, attributes: [] }],
      filesToMake: [
        {
          path,
          identity: identity({ mode: 0o100640, sizeBytes: 3 * 4096 + 2 }),
          ...plain,
          runs: listedRuns([
            { address: 0, pages: 1, physical: 7 * 4096 },
            { address: 3 * 4096, pages: 1, physical: 9 * 4096 },
          ]),
        },
      ],
    });
    assert.deepEqual(makeAndCheckFiles(images), []);
    assert.equal(statSync(directory).mode & 0o7777, 0o1711);
    assert.equal(statSync(path).mode & 0o7777, 0o640);
    assert.equal(statSync(path).mtimeMs, 2000);
    const content = readFileSync(path);
    assert.equal(content.length, 3 * 4096 + 2);
    assert.deepEqual(
      [0, 4095, 4096, 3 * 4096 - 1, 3 * 4096, 3 * 4096 + 1].map((at) => content[at]),
      [7, 7, 0, 0, 9, 9],
    );
  });

  test('what is noted is a file that was checked, and none that was put there in between', () => {
    const path = join(onDisk, 'swapped');
    writeFileSync(path, 'as it was');
    const { ino: inode, mode, size: sizeBytes } = statSync(path);
    const checks = [
      { path, identity: identity({ fileSystem: 'ext4', onDisk: true, inode, mode, sizeBytes }) },
    ];
    const noted = () => {
      const found = new Map();
      assert.deepEqual(notePaths(checks, found), []);
      return checkNoted(checks, found);
    };
    assert.deepEqual(makeAndCheckFiles(written({ filesToCheck: checks })), []);
    assert.deepEqual(noted(), []);
    rmSync(path);
    symlinkSync('/etc/passwd', path);
    assert.deepEqual(noted(), [{ path, problem: 'is a symbolic link and was a regular file' }]);
    rmSync(path);
    assert.deepEqual(noted(), [{ path, problem: 'is not there' }]);
  });

  test('looks whether the name of a socket leads to where its file was', () => {
    const at = (path: string): string => join(onDisk, path);
    for (const name of ['run', 'run/web', 'run/old']) mkdirSync(at(name));
    symlinkSync('run', at('name'));
    symlinkSync('../run/web', at('run/below'));
    const problemsOf = (leadsTo: string, name: string) =>
      makeAndCheckFiles(written({ files: [socketOf(1, { name: Buffer.from(name), leadsTo })] }));
    assert.deepEqual(problemsOf(at('run/web/s'), at('name/web/s')), []);
    assert.deepEqual(problemsOf(at('run/web/s'), `${at('run/below')}/../web/./s`), []);
    assert.deepEqual(problemsOf(at('run/web/s'), at('run/old/s')), [
      {
        path: at('run/web/s'),
        problem: `is the file of a socket that was bound as ${at('run/old/s')}: that is ${at('run/old/s')} now`,
      },
    ]);
    const [gone] = problemsOf(at('run/web/s'), at('run/gone/s'));
    assert.match(gone?.problem ?? '', /cannot be made or checked: ENOENT/);
  });

  // tmpfs has attributes of users since 6.6 only, trusted ones always.
  test('sets extended attributes, and has a problem with one that cannot be set', {
    skip: own.uid !== 0,
  }, () => {
    const make = (name: string, attribute: string) => {
      const attributes = [{ name: attribute, value: Buffer.from('blue') }];
      const file = {
        path: join(scratch, name),
        identity: identity({}),
        ...plain,
        attributes,
        runs: listedRuns([]),
      };
      return makeAndCheckFiles(written({ filesToMake: [file] }));
    };
    assert.deepEqual(make('coloured', 'trusted.colour'), []);
    const value = Buffer.alloc(8);
    assert.equal(getxattr(join(scratch, 'coloured'), 'trusted.colour', value, value.length), 4);
    assert.equal(value.toString('latin1', 0, 4), 'blue');
    assert.match(make('odd', 'odd.colour')[0]?.problem ?? '', /attribute odd.colour: lsetxattr: ENOTSUP, /);
  });

  const isDisk = statfsSync(tmpdir()).type !== statfsSync('/dev/shm').type;
  test('makes nothing on a disk or behind a symbolic link', { skip: !isDisk }, () => {
    symlinkSync(scratch, join(scratch, 'link'));
    for (const [place, problem] of [
      [onDisk, /is on a disk and was in memory: a mount is missing/],
      [join(scratch, 'link'), /is behind a symbolic link/],
    ] as const) {
      const [path, directory] = [join(place, 'made'), join(place, 'made too')];
      const problems = makeAndCheckFiles(
        written({
          directoriesToMake: [{ path: directory, mode: 0o700, ...own, attributes: [] }],
          filesToMake: [{ path, identity: identity({}), ...plain, runs: listedRuns([]) }],
        }),
      );
      assert.equal(problems.length, 2);
      for (const one of problems) assert.match(one.problem, problem);
      assert.ok(!existsSync(path) && !existsSync(directory));
    }
  });

  test('makes a FIFO again', () => {
    const path = join(scratch, 'fifo');
    assert.deepEqual(
      makeAndCheckFiles(
        written({
          filesToMake: [{ path, identity: identity({ mode: 0o010620 }), ...plain, runs: listedRuns([]) }],
        }),
      ),
      [],
    );
    assert.ok(statSync(path).isFIFO());
    assert.equal(statSync(path).mode & 0o7777, 0o620);
  });

  test('makes a file that two groups share once, and finds one that was there before', () => {
    const path = join(scratch, 'shared');
    const images = written({
      filesToMake: [{ path, identity: identity({ sizeBytes: 4 }), ...plain, runs: listedRuns([]) }],
    });
    const made = new Set<string>();
    assert.deepEqual(makeAndCheckFiles(images, made), []);
    assert.deepEqual(makeAndCheckFiles(images, made), []);
    assert.deepEqual(makeAndCheckFiles(images), [{ path, problem: 'is there already' }]);
  });

  test('makes nothing for others of images that the disk did not take', () => {
    const paths = ['first', 'second', 'third'].map((name) => join(scratch, `taken-${name}`));
    const images = (page: number) =>
      written({
        filesToMake: paths.map((path) => ({
          ...{ path, identity: identity({ sizeBytes: 4096 }), ...plain },
          runs: listedRuns([{ address: 0, pages: 1, physical: page * 4096 }]),
        })),
      });
    const made = new Set<string>();
    // The second time it is told of, and once: the kernel does not say it again.
    let looks = 0;
    const problems = makeAndCheckFiles(images(7), made, () => {
      if (++looks === 2) throw new Error('EIO');
    });
    assert.deepEqual(problems, [
      {
        path: paths[1],
        problem: 'cannot be made or checked: the disk did not take all of its image: EIO',
      },
    ]);
    assert.deepEqual([...made], paths.slice(0, 1));
    assert.deepEqual(
      paths.map((path) => existsSync(path)),
      [true, false, false],
    );
    // The other group has them of its own images.
    assert.deepEqual(makeAndCheckFiles(images(9), made), []);
    assert.deepEqual(
      paths.map((path) => readFileSync(path)[0]),
      [7, 9, 9],
    );
  });

  test('finds a file that is gone, another one, of another type or of another size', () => {
    const path = join(scratch, 'checked');
    writeFileSync(path, 'twelve bytes');
    mkdirSync(join(scratch, 'a directory'));
    const { ino: inode } = statSync(path);
    const same = identity({ onDisk: true, inode, sizeBytes: 12, mode: 0o100644 });
    const check = (at: string, was: FileIdentity) =>
      makeAndCheckFiles(written({ filesToCheck: [{ path: at, identity: was }] })).map(
        ({ problem }) => problem,
      );
    assert.deepEqual(check(path, same), []);
    assert.deepEqual(check(`${path}?`, same), ['is not there']);
    assert.deepEqual(check(join(scratch, 'a directory'), same), ['is a directory and was a regular file']);
    assert.deepEqual(check(path, { ...same, sizeBytes: 13 }), ['has 12 bytes instead of 13']);
    assert.deepEqual(check(path, { ...same, inode: inode + 1 }), [
      `is another file than before the panic (inode ${inode}, was ${inode + 1})`,
    ]);
  });

  test('finds a symbolic link by itself, wherever it leads, and takes none for the file that it leads to', () => {
    const path = join(onDisk, 'file');
    const dangling = join(onDisk, 'dangling');
    const link = join(onDisk, 'link');
    writeFileSync(path, '');
    symlinkSync('/nowhere', dangling);
    symlinkSync(path, link);
    const check = (at: string, changes: Partial<FileIdentity>) => {
      const was = identity({ onDisk: true, inode: lstatSync(at).ino, ...changes });
      return makeAndCheckFiles(written({ filesToCheck: [{ path: at, identity: was }] })).map(
        ({ problem }) => problem,
      );
    };
    for (const at of [dangling, link]) assert.deepEqual(check(at, { mode: 0o120777 }), []);
    assert.deepEqual(check(link, { inode: statSync(path).ino }), [
      'is a symbolic link and was a regular file',
    ]);
  });
});
