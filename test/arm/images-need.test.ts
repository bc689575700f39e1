import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { roomFinding } from '../../src/arm/doctor.ts';
import { type ImagesNeed, imagesNeed, judgeRoom, lookAtRoom } from '../../src/arm/images-need.ts';
import { liveProcesses } from '../../src/arm/live-processes.ts';
import { defaultConfig } from '../../src/config/config.ts';
import { COMMON_BYTES_PER_SECOND } from '../../src/config/restore-time.ts';
import { timeForOne } from '../../src/crash-world/time-share.ts';
import { type ImagesRoom, roomOf } from '../../src/report/images-room.ts';
import { EXT_MAGIC, TMPFS_MAGIC } from '../../src/system/file-systems.ts';
import { freeOf } from '../../src/system/free-space.ts';

const MIB = 2 ** 20;
/** What the kernel's counts may be behind, and what a child of Python takes. */
const SLACK = 3 * MIB;

const running: ChildProcess[] = [];
const scratch = mkdtempSync(join(tmpdir(), 'otherworld-need-'));
const shared = mkdtempSync('/dev/shm/otherworld-need-');
after(() => {
  // With their children.
  for (const { pid } of running) spawnSync('kill', ['-KILL', '--', `-${pid}`]);
  // Some paths are too long for node.
  spawnSync('rm', ['-rf', '--', scratch, shared]);
});

/** Makes a child that shares the address space, and does nothing. */
const sharing = `import ctypes
libc = ctypes.CDLL(None); stack = ctypes.create_string_buffer(1 << 16)
CLONE_VM = 0x100; SIGCHLD = 17
top = ctypes.c_void_p((ctypes.addressof(stack) + (1 << 16)) & ~15)
libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), top, CLONE_VM | SIGCHLD, None)`;

/** Goes to a directory whose path is longer than a page. */
const goDeep = `os.chdir("${scratch}")
for _ in range(20): os.mkdir("d" * 250); os.chdir("d" * 250)`;

/** Mounts can be made by root where nothing forbids it. */
const mayMount = spawnSync('unshare', ['--mount', 'true']).status === 0;

/** Runs a Python program up to its end, where it waits. @returns what its images would need */
async function needOf(program: string, prefix: readonly string[] = []): Promise<number> {
  return (await lookedAt(program, prefix)).processes.bytes;
}

async function lookedAt(program: string, prefix: readonly string[] = []): Promise<ImagesNeed> {
  const pid = await started(program, prefix);
  return imagesNeed([pid], 0);
}

async function started(program: string, prefix: readonly string[] = []): Promise<number> {
  const preamble = 'import mmap, os, sys, time\nMIB = 1 << 20\nsize = 32 * MIB\n';
  const end = '\nprint("ready", flush=True)\nsys.stdin.read()\n';
  const [command = '', ...args] = [...prefix, 'python3', '-c', `${preamble}${program}${end}`];
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], detached: true });
  running.push(child);
  await once(child.stdout!, 'data');
  return child.pid!;
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
    [
      'the address space that a child has as well (vfork), once',
      32,
      `a = bytearray(b"x") * size\n${sharing}`,
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

suite('files in a mount namespace of its own', { skip: !mayMount && 'no mounts here' }, () => {
  const write = (path: string) => `f = open("${path}", "wb+"); f.write(b"x" * size); f.flush()`;
  const inside = (mount: string) => ['unshare', '--mount', 'sh', '-c', `${mount} && exec "$@"`, 'sh'];

  test('count by the file systems that they are on, whatever these are called elsewhere', async () => {
    const idle = await needOf('');
    const place = mkdtempSync(join(scratch, 'mount-'));
    const own = await needOf(write(join(place, 'file')), inside(`mount -t tmpfs own '${place}'`));
    assert.ok(own - idle > 32 * MIB - SLACK && own - idle < 32 * MIB + SLACK, `${own - idle}`);
    const mapped = `${write(join(place, 'm'))}; a = mmap.mmap(f.fileno(), size); f.close()`;
    const area = await needOf(mapped, inside(`mount -t tmpfs own '${place}'`));
    assert.ok(area - idle > 32 * MIB - SLACK && area - idle < 32 * MIB + SLACK, `${area - idle}`);
    const bound = await needOf(write(join(shared, 'file')), inside(`mount --bind '${place}' '${shared}'`));
    assert.ok(bound - idle < SLACK, `${bound - idle}`);
  });
});

suite('what cannot be read', () => {
  test('of a path that is too long keeps nobody from counting the rest', async () => {
    const program = `${goDeep}\nf = open("file", "wb+")\na = bytearray(b"x") * size`;
    const need = await lookedAt(program);
    assert.ok(need.processes.bytes > 32 * MIB);
    assert.equal(need.unread, undefined);
    const gone = await started('');
    const other = imagesNeed(
      [gone, await started(`${goDeep.replaceAll('"d"', '"e"')}; f = open("g", "wb+")`)],
      0,
    );
    assert.ok(other.processes.files > 60, `${other.processes.files}`);
  });

  test('of a program whose path is too long does not keep others from being found', async () => {
    const copied = `${goDeep.replaceAll('"d"', '"x"')}
import shutil, subprocess
shutil.copy("/bin/sleep", "sl"); child = subprocess.Popen(["./sl", "99"])
while open(f"/proc/{child.pid}/comm").read() != "sl\\n": time.sleep(0.01)`;
    const pid = await started(copied);
    const found = liveProcesses();
    assert.ok(found.some((one) => one.pid === pid));
    assert.equal(found.find(({ comm }) => comm === 'sl')?.exe, undefined);
  });

  test('is told, and nothing fails for it', () => {
    const config = { ...defaultConfig(), images: { ...defaultConfig().images, directory: '/var/lib' } };
    const looked = lookAtRoom(() => [process.pid], config);
    assert.ok((looked.need?.processes.bytes ?? 0) > MIB);
    assert.equal(looked.unknown, undefined);
    const failed = lookAtRoom(
      () => [],
      config,
      () => {
        throw new Error('ESTALE: stale file handle');
      },
    );
    assert.deepEqual(failed, {
      unknown: 'whether there is room for the images cannot be told: ESTALE: stale file handle',
    });
    const { state, found } = roomFinding(failed, 1024 * MIB);
    assert.deepEqual([state, found], ['advice', failed.unknown]);
    const noRules = lookAtRoom(() => {
      throw new Error('EIO');
    }, config);
    assert.match(noRules.unknown ?? '', /EIO$/);
    const some = judge(
      { processes: { bytes: 1, files: 1 }, tmpfsBytes: 0, unread: { count: 2, first: 'x: EIO' } },
      roomOf({ directory: '/', bytes: 2 ** 40, files: undefined, type: EXT_MAGIC }),
    );
    assert.match(some.unknown ?? '', /^images may need more than is said: 2 of what is protected .* x: EIO$/);
    assert.equal(roomFinding(some, 1024 * MIB).state, 'advice');
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

const judge = (need: ImagesNeed, room: ImagesRoom) => judgeRoom(need, room, 30);

suite('the room for images', () => {
  const room = (free: number) =>
    roomOf({ directory: '/var/lib', bytes: free * MIB, files: undefined, type: EXT_MAGIC });
  const need = (mebibytes: number, tmpfs = 0, files = 10) => ({
    processes: { bytes: mebibytes * MIB, files },
    tmpfsBytes: tmpfs * MIB,
  });

  test('is enough, or too little for the processes, or for the files on tmpfs as well', () => {
    const enough = judge(need(900, 30), room(1000));
    assert.deepEqual([enough.problem, enough.tmpfsProblem], [undefined, undefined]);
    const short = judge(need(940), room(1000));
    assert.match(
      short.problem ?? '',
      /^the images of what is protected now need 940 MiB, and 1000 MiB are free in \/var\/lib, 64 of them for the rest of the system\. .*: make room there/,
    );
    const lost = judge(need(900, 50), room(1000));
    assert.equal(lost.problem, undefined);
    assert.match(
      lost.tmpfsProblem ?? '',
      /^with the files on tmpfs that are carried over, images need 950 MiB/,
    );
    // Of little, not all is kept for others.
    assert.equal(judge(need(8), room(10)).problem, undefined);
    assert.match(judge(need(10), room(10)).problem ?? '', /10 MiB are free in \/var\/lib, 1 of them/);
  });

  test('is what the doctor goes by: of what is protected now, and of half of the memory', () => {
    const stateOf = (needed: number, free: number, tmpfs = 0) =>
      roomFinding(judge(need(needed, tmpfs), room(free)), 1024 * MIB);
    assert.deepEqual(stateOf(100, 600), {
      ...{ what: 'storage for images', state: 'good', found: '100 MiB needed, 600 MiB free in /var/lib' },
    });
    assert.equal(stateOf(100, 500).state, 'advice');
    assert.match(stateOf(100, 600, 500).todo ?? '', /^with the files on tmpfs/);
    const missing = stateOf(580, 600);
    assert.equal(missing.state, 'missing');
    assert.match(missing.todo ?? '', /^the images of what is protected now need 580 MiB/);
  });

  test('does not help where the disk would have to be faster than most', () => {
    assert.equal(judge(need(80_000), room(900_000)).rateProblem, undefined);
    const slow = judge(need(262_144), room(900_000));
    assert.match(
      slow.rateProblem ?? '',
      /within 30 minutes, which takes a disk with more than 318 MiB\/s .*: set crash-kernel\.time-limit-minutes to 94 and arm again/,
    );
    assert.equal(judgeRoom(need(262_144), room(900_000), 94).rateProblem, undefined);
    assert.equal(slow.problem, undefined);
    assert.equal(roomFinding(slow, 1024 * MIB).state, 'advice');
    // What is on tmpfs takes its time, too.
    assert.notEqual(judge(need(80_000, 10_000), room(900_000)).rateProblem, undefined);
  });

  test('does not help services in sandboxes either, and no setting gives them more time', () => {
    const service = (mebibytes: number) => ({ ...need(mebibytes), sandboxBytes: mebibytes * MIB });
    assert.equal(judge(service(67_000), room(900_000)).rateProblem, undefined);
    const { rateProblem } = judge(service(70_000), room(900_000));
    assert.match(rateProblem ?? '', /^the images of services in sandboxes .* within 13 minutes/);
    assert.doesNotMatch(rateProblem ?? '', /time-limit-minutes/);
  });

  test('is told with the time that a group then has', () => {
    const minutes = 30;
    const bytes = 80_000 * MIB;
    assert.equal(judge(need(80_000), room(900_000)).rateProblem, undefined);
    const seconds = bytes / COMMON_BYTES_PER_SECOND;
    const time = { minutes, limit: 'time-limit-minutes' };
    const one = { pagesBytes: bytes, ringSeconds: 0 };
    assert.ok(timeForOne(time, one, [], (60 + seconds) * 1000).seconds >= seconds);
    // The same in several groups, the largest of which is first.
    const parts = [0.9, 0.05, 0.05].map((part) => ({ pagesBytes: part * bytes, ringSeconds: 0 }));
    let passed = 30 + seconds;
    for (const [i, part] of parts.entries()) {
      const own = part.pagesBytes / COMMON_BYTES_PER_SECOND;
      assert.ok(timeForOne(time, part, parts.slice(i + 1), passed * 1000).seconds >= Math.floor(own), `${i}`);
      passed += own;
    }
  });

  test('ends with the inodes of the file system, too', () => {
    const { problem } = judge(need(1, 0, 100), { ...room(1000), ...{ files: 90, filesForImages: 81 } });
    assert.match(problem ?? '', /need 100 files, and 90 more can be made in \/var\/lib/);
  });

  test('is no disk if that is a file system in memory', () => {
    const inMemory = { ...room(10_000), type: TMPFS_MAGIC };
    assert.match(judge(need(1), inMemory).problem ?? '', /^images\.directory is on a file system in memory/);
    assert.equal(judge(need(0, 0, 0), inMemory).problem, undefined);
  });

  test('is what root can write', () => {
    const said = { bsize: 4096, blocks: 1000, bfree: 100, bavail: 50, files: 10, ffree: 3 };
    assert.deepEqual(freeOf({ ...said, type: EXT_MAGIC }), { bytes: 327_680, files: 3, type: EXT_MAGIC });
    assert.equal(freeOf({ ...said, type: 0x9123_683e }).bytes, 204_800);
    assert.equal(freeOf({ ...said, type: 0x9123_683e, files: 0, ffree: 0 }).files, undefined);
  });
});
