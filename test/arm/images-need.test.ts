import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { roomFinding } from '../../src/arm/doctor.ts';
import { imagesNeed, judgeRoom } from '../../src/arm/images-need.ts';
import { roomOf } from '../../src/report/images-room.ts';
import { EXT_MAGIC, TMPFS_MAGIC } from '../../src/system/file-systems.ts';
import { freeOf } from '../../src/system/free-space.ts';

const MIB = 2 ** 20;
/** What the kernel's counts may be behind, and what a child of Python takes. */
const SLACK = 3 * MIB;

const running: ChildProcess[] = [];
const scratch = mkdtempSync(join(tmpdir(), 'otherworld-need-'));
const shared = mkdtempSync('/dev/shm/otherworld-need-');
after(() => {
  for (const child of running) child.kill('SIGKILL');
  for (const directory of [scratch, shared]) rmSync(directory, { recursive: true });
});

/** Runs a Python program up to its end, where it waits. @returns what its images would need */
async function needOf(program: string): Promise<number> {
  const preamble = 'import mmap, os, sys, time\nMIB = 1 << 20\nsize = 32 * MIB\n';
  const end = '\nprint("ready", flush=True)\nsys.stdin.read()\n';
  const child = spawn('python3', ['-c', `${preamble}${program}${end}`], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  running.push(child);
  await once(child.stdout!, 'data');
  return imagesNeed([child.pid!], 0).processes.bytes;
}

suite('what the images of a process need', () => {
  const cases: readonly [what: string, mebibytes: number, program: string][] = [
    ['its own memory', 32, 'a = bytearray(b"x") * size'],
    ['memory that it has not touched: nothing', 0, 'a = mmap.mmap(-1, size, mmap.MAP_PRIVATE)'],
    [
      'memory that a child has as well, for both',
      64,
      'a = bytearray(b"x") * size\nif os.fork() == 0: time.sleep(99)',
    ],
    [
      'shared memory that a child has as well, once',
      32,
      'a = mmap.mmap(-1, size); a.write(b"x" * size)\nif os.fork() == 0: time.sleep(99)',
    ],
    ['a memfd that it has not mapped', 32, 'os.write(os.memfd_create("x"), b"x" * size)'],
    ['the holes of one: nothing', 0, 'os.ftruncate(os.memfd_create("x"), size)'],
    [
      'a deleted file, mapped and open',
      32,
      `f = open("${join(scratch, 'gone')}", "wb+"); f.write(b"x" * size); f.flush(); os.fsync(f); a = mmap.mmap(f.fileno(), size); os.unlink(f.name)`,
    ],
    [
      'a file on a disk: nothing',
      0,
      `f = open("${join(scratch, 'file')}", "wb+"); f.write(b"x" * size); f.flush()`,
    ],
    ['a file on tmpfs', 32, `f = open("${join(shared, 'file')}", "wb+"); f.write(b"x" * size); f.flush()`],
  ];
  test('is what it has in memory alone, by what it has of each kind', async () => {
    const idle = await needOf('');
    assert.ok(idle > MIB / 4 && idle < 20 * MIB, `${idle}`);
    for (const [what, mebibytes, program] of cases) {
      const more = (await needOf(program)) - idle;
      const isForked = program.includes('fork') ? idle : 0;
      assert.ok(more >= mebibytes * MIB - SLACK, `${what}: ${more / MIB} MiB`);
      assert.ok(more <= mebibytes * MIB + SLACK + isForked, `${what}: ${more / MIB} MiB`);
    }
  });
});

test('what a tmpfs holds is told up to the limit of the configuration', async () => {
  const file = join(shared, 'open');
  const child = spawn('python3', [
    ...['-c', `import sys\nf = open("${file}", "wb+"); f.write(b"x" * ${8 * MIB}); f.flush()`],
  ]);
  running.push(child);
  await once(child, 'close');
  const all = imagesNeed([], 2 ** 20).tmpfsBytes;
  assert.ok(all >= 8 * MIB, `${all}`);
  assert.equal(imagesNeed([], 3).tmpfsBytes, 3 * MIB);
  assert.equal(imagesNeed([], 0).tmpfsBytes, 0);
});

suite('the room for images', () => {
  const room = (free: number) =>
    roomOf({ directory: '/var/lib', bytes: free * MIB, files: undefined, type: EXT_MAGIC });
  const need = (mebibytes: number, tmpfs = 0, files = 10) => ({
    processes: { bytes: mebibytes * MIB, files },
    tmpfsBytes: tmpfs * MIB,
  });

  test('is enough, or too little for the processes, or for the files on tmpfs as well', () => {
    const enough = judgeRoom(need(900, 30), room(1000));
    assert.deepEqual([enough.problem, enough.tmpfsProblem], [undefined, undefined]);
    const short = judgeRoom(need(940), room(1000));
    assert.match(
      short.problem ?? '',
      /^the images of what is protected now need 940 MiB, and 1000 MiB are free in \/var\/lib, 64 of them for the rest of the system\. .*: make room there/,
    );
    const lost = judgeRoom(need(900, 50), room(1000));
    assert.equal(lost.problem, undefined);
    assert.match(
      lost.tmpfsProblem ?? '',
      /^with the files on tmpfs that are carried over, images need 950 MiB/,
    );
    // Of little, not all is kept for others.
    assert.equal(judgeRoom(need(8), room(10)).problem, undefined);
    assert.match(judgeRoom(need(10), room(10)).problem ?? '', /10 MiB are free in \/var\/lib, 1 of them/);
  });

  test('is what the doctor goes by: of what is protected now, and of half of the memory', () => {
    const stateOf = (needed: number, free: number, tmpfs = 0) =>
      roomFinding(judgeRoom(need(needed, tmpfs), room(free)), 1024 * MIB);
    assert.deepEqual(stateOf(100, 600), {
      ...{ what: 'storage for images', state: 'good', found: '100 MiB needed, 600 MiB free in /var/lib' },
    });
    assert.equal(stateOf(100, 500).state, 'advice');
    assert.match(stateOf(100, 600, 500).todo ?? '', /^with the files on tmpfs/);
    const missing = stateOf(580, 600);
    assert.equal(missing.state, 'missing');
    assert.match(missing.todo ?? '', /^the images of what is protected now need 580 MiB/);
  });

  test('ends with the inodes of the file system, too', () => {
    const { problem } = judgeRoom(need(1, 0, 100), { ...room(1000), ...{ files: 90, filesForImages: 81 } });
    assert.match(problem ?? '', /need 100 files, and 90 more can be made in \/var\/lib/);
  });

  test('is no disk if that is a file system in memory', () => {
    const inMemory = { ...room(10_000), type: TMPFS_MAGIC };
    assert.match(
      judgeRoom(need(1), inMemory).problem ?? '',
      /^images\.directory is on a file system in memory/,
    );
    assert.equal(judgeRoom(need(0, 0, 0), inMemory).problem, undefined);
  });

  test('is what root can write', () => {
    const said = { bsize: 4096, blocks: 1000, bfree: 100, bavail: 50, files: 10, ffree: 3 };
    assert.deepEqual(freeOf({ ...said, type: EXT_MAGIC }), { bytes: 409_600, files: 3, type: EXT_MAGIC });
    assert.equal(freeOf({ ...said, type: 0x9123_683e }).bytes, 204_800);
    assert.equal(freeOf({ ...said, type: 0x9123_683e, files: 0, ffree: 0 }).files, undefined);
  });
});
