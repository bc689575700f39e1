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
import { makeMemoryFiles, removePidFiles } from '../../src/crash-world/memory-files.ts';
import { writePreparation } from '../../src/criu/files/preparation.ts';
import { ImageDirectory, type PageSource } from '../../src/criu/image.ts';
import type { FileToMake, MemoryFiles } from '../../src/model/file.ts';

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
      runs: [{ address: 0, pages: Math.ceil(sizeBytes / 4096), physical: page * 4096 }],
    };
  }

  function saved(files: Partial<MemoryFiles>): { directory: string; pidFiles: [] } {
    const images = new ImageDirectory(join(scratch, `images-${number++}`));
    const none = { directoriesToMake: [], filesToMake: [], symlinksToMake: [], namesToMake: [] };
    writePreparation({ ...none, ...files }, images, source);
    images.close();
    return { directory: images.path, pidFiles: [] };
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
    makeMemoryFiles(one, 1 << 20, 'failed', { notes });
    assert.deepEqual(notes, []);
    assert.equal(statSync(directory).mode & 0o7777, 0o1711);
    assert.deepEqual(readFileSync(join(place, 'deep/first')), Buffer.alloc(5000, 3));
    assert.deepEqual(readFileSync(join(place, 'second')), Buffer.alloc(10, 4));
    assert.equal(readlinkSync(join(place, 'link')), 'deep/first');
    assert.equal(statSync(join(place, 'other')).ino, statSync(join(place, 'deep/first')).ino);
    assert.ok(!existsSync(one.directory));
  });

  test('that a group has made already are left alone', () => {
    writeFileSync(join(place, 'taken'), 'by a group');
    const notes: string[] = [];
    makeMemoryFiles(saved({ filesToMake: [file('taken', 3, 5)] }), 1 << 20, 'failed', { notes });
    assert.deepEqual(notes, []);
    assert.equal(readFileSync(join(place, 'taken'), 'utf8'), 'by a group');
  });

  test('that do not fit into memory are named and kept, and their names with them; others are made', () => {
    const files = {
      filesToMake: [file('large', 3, 9000), file('small', 4, 1000)],
      namesToMake: [{ path: join(place, 'other'), of: join(place, 'large') }],
    };
    const one = saved(files);
    const notes: string[] = [];
    makeMemoryFiles(one, 8999, 'failed', { notes });
    assert.match(notes[0] ?? '', /^lost from tmpfs: .*large: its 9000 bytes do not fit into the memory/);
    assert.match(notes[1] ?? '', /^lost from tmpfs: .*other: ENOENT/);
    assert.equal(notes[2], `what did not come back of tmpfs is in ${one.directory}`);
    assert.deepEqual(readdirSync(place), ['small']);
    assert.ok(existsSync(join(one.directory, 'made.raw')));
    const never = saved(files);
    makeMemoryFiles(never, 0, 'never', { notes });
    assert.ok(!existsSync(never.directory));
  });

  test('more than twenty that are lost are counted', () => {
    const notes: string[] = [];
    const filesToMake = Array.from({ length: 25 }, (_, i) => file(`${i}`, 1, 100));
    makeMemoryFiles(saved({ filesToMake }), 0, 'failed', { notes });
    assert.equal(notes.length, 22);
    assert.equal(notes[20], 'lost from tmpfs: 5 more files');
  });

  test('a half-made file is removed again', () => {
    const one = saved({ filesToMake: [file('cut', 3, 5000)] });
    writeFileSync(join(one.directory, 'made.raw'), 'short');
    const notes: string[] = [];
    makeMemoryFiles(one, 1 << 20, 'failed', { notes });
    assert.match(notes[0] ?? '', /cut: the content in the images is too short/);
    assert.equal(lstatSync(join(place, 'cut'), { throwIfNoEntry: false }), undefined);
  });

  test('that name a process which did not come back are removed', () => {
    for (const name of ['alive', 'dead']) writeFileSync(join(place, name), '1\n');
    const pidFiles = [
      { path: join(place, 'alive'), pid: 10 },
      { path: join(place, 'dead'), pid: 11 },
    ];
    removePidFiles({ directory: '', pidFiles }, new Set([10]));
    assert.deepEqual(readdirSync(place), ['alive']);
  });
});
