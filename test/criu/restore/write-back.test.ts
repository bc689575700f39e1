import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { PinnedImages, writeBackProblems } from '../../../src/criu/restore/write-back.ts';
import { SystemCallError } from '../../../src/system/errno.ts';
import { withDescriptorsLeft } from '../../descriptors.ts';

const MIB = 2 ** 20;
const scratch = mkdtempSync(join(tmpdir(), 'otherworld-write-back-'));
after(() => {
  thin?.end();
  rmSync(scratch, { recursive: true });
});

test('images that their disk has taken are right, and so are those that it has not been given', () => {
  const directory = join(scratch, 'good');
  mkdirSync(join(directory, 'below'), { recursive: true });
  writeFileSync(join(directory, 'pages-1.img'), Buffer.alloc(MIB, 1));
  writeFileSync(join(directory, 'below', 'core-1.img'), 'x');
  assert.deepEqual(writeBackProblems(directory), []);
});

test('every file is looked at, and one that was not taken is named', () => {
  const directory = join(scratch, 'bad');
  mkdirSync(join(directory, 'below'), { recursive: true });
  for (const name of ['pages-1.img', 'below/core-1.img']) writeFileSync(join(directory, name), 'x');
  const problems = writeBackProblems(directory, () => {
    throw new SystemCallError('sync_file_range', 5);
  });
  assert.deepEqual(
    problems.map((problem) => problem.slice(problem.indexOf(directory) + directory.length + 1)).toSorted(),
    ['below/core-1.img', 'pages-1.img'].map(
      (name) => `${name}, and what was read of it may be wrong: sync_file_range: EIO, i/o error`,
    ),
  );
});

/** Gives the small file system below a loop device; undefined where that cannot be made. */
function thinDisk(): { disk: string; end: () => void } | undefined {
  const [small, disk] = [join(scratch, 'small'), join(scratch, 'disk')];
  for (const path of [small, disk]) mkdirSync(path);
  const file = join(small, 'file');
  const make = [
    `mount -t tmpfs -o size=16m small '${small}'`,
    `truncate -s 64M '${file}'`,
    `/usr/sbin/mkfs.ext4 -q -F -O ^has_journal -E nodiscard '${file}'`,
    `mount -o loop '${file}' '${disk}'`,
  ].join(' && ');
  const end = (): void => {
    for (const path of [disk, small]) spawnSync('umount', [path], { stdio: 'ignore' });
  };
  if (spawnSync('sh', ['-c', make], { stdio: 'ignore' }).status === 0) return { disk, end };
  end();
  return undefined;
}

const thin = thinDisk();

suite('a disk that has less than it says', { skip: thin === undefined && 'no loop devices here' }, () => {
  const write = (name: string): string => {
    const directory = join(thin!.disk, name);
    mkdirSync(directory);
    writeFileSync(join(directory, 'pages-1.img'), Buffer.alloc(24 * MIB, 1));
    return directory;
  };

  test('is told of, though whoever wrote and whoever reads hears of nothing', () => {
    const directory = write('group-1');
    const pinned = new PinnedImages();
    pinned.pin(directory);
    // Not fsync of that file, which would be told of the error, and nobody after it.
    execFileSync('sh', ['-c', `sync -f '${directory}'; echo 3 > /proc/sys/vm/drop_caches`], {
      stdio: 'ignore',
    });
    const problems = writeBackProblems(directory);
    assert.match(problems[0] ?? '', /^the disk did not take all of .*pages-1\.img.*: (EIO|ENOSPC)/);
    pinned.release(directory);
    execFileSync('rm', ['-r', directory]);
    // What is open takes room.
    assert.ok(write('group-2').length > 0);
  });
});

suite('images that are kept open', () => {
  const openFiles = (): string[] =>
    readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return [];
      }
    });
  const openBelow = (directory: string): string[] =>
    openFiles()
      .filter((path) => path.startsWith(`${directory}/`))
      .map((path) => path.slice(directory.length + 1));
  /** @param sizes in KiB, of files that are called by them */
  const directoryOf = (name: string, sizes: readonly number[]): string => {
    const directory = join(scratch, name);
    mkdirSync(directory);
    for (const size of sizes) writeFileSync(join(directory, String(size)), Buffer.alloc(size << 10));
    return directory;
  };
  test('are the largest of all directories, and no more than leave descriptors for all others', () => {
    withDescriptorsLeft(400, (limit) => {
      const most = Math.floor(limit / 4);
      const sizes = Array.from({ length: most + 50 }, (_, i) => 64 + i);
      const largest = String(sizes.at(-1));
      const first = directoryOf('first', sizes);
      const second = directoryOf('second', [...sizes, 4000, 4001]);
      const pinned = new PinnedImages();
      pinned.pin(first);
      assert.equal(openBelow(first).length, most);
      assert.ok(openBelow(first).includes(largest) && !openBelow(first).includes('64'));
      pinned.pin(second);
      assert.equal(openBelow(first).length + openBelow(second).length, most);
      assert.ok(openBelow(second).includes('4000') && openBelow(second).includes('4001'));
      pinned.release(first);
      pinned.release(second);
      assert.deepEqual([...openBelow(first), ...openBelow(second)], []);
    });
  });

  test('are none of a directory of which one cannot be opened', () => {
    const directory = directoryOf(
      'many',
      Array.from({ length: 30 }, (_, i) => 64 + i),
    );
    const pinned = new PinnedImages();
    const others = Array.from({ length: 100 }, () => openSync('/dev/null', 'r'));
    withDescriptorsLeft(8, () => assert.throws(() => pinned.pin(directory), /EMFILE/));
    for (const fd of others) closeSync(fd);
    assert.deepEqual(openBelow(directory), []);
  });
});
