import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { type ImagesNeed, imagesNeed } from '../../src/arm/images-need.ts';
import { liveProcesses } from '../../src/arm/live-processes.ts';

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

  test('of one that has ended, but is there, is none, and keeps nobody from counting the rest', async () => {
    const parent = await started(`child = os.fork() or os._exit(0)
while open(f"/proc/{child}/stat").read().split()[2] != "Z": time.sleep(0.01)`);
    const children = readFileSync(`/proc/${parent}/task/${parent}/children`, 'latin1');
    const { processes, unread } = imagesNeed([Number(children), parent], 0);
    assert.equal(unread, undefined);
    assert.ok(processes.bytes < 32 * MIB, `${processes.bytes}`);
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
