// The programs of the benchmark find what came back wrong.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';

const bench = join(import.meta.dirname, '../../bench');

/**
 * What a program finds when it looks twice at what it has.
 * @param wrong Python that has some of it made in another way
 */
function found(kind: string, wrong = ''): string {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-many-'));
  const program = `
import ctypes, mmap, os, sys, threading, time
sys.path.insert(0, ${JSON.stringify(bench)})
sys.dont_write_bytecode = True
import many
many.directory = ${JSON.stringify(directory)}
many.ANSWER_SECONDS = 20
${wrong}
try:
    look = many.${kind}(20)
    look()
    look()
    print("ok")
except Exception as problem:
    print(problem)
sys.stdout.flush()
os._exit(0)
`;
  try {
    const { stdout, stderr } = spawnSync('python3', ['-c', program], { encoding: 'utf8', timeout: 120_000 });
    assert.equal(stderr, '');
    return stdout.trim();
  } finally {
    rmSync(directory, { recursive: true });
  }
}

suite('a program with many things', () => {
  for (const kind of ['none', 'descriptors', 'connections', 'areas', 'threads'])
    test(`finds nothing wrong where nothing is: ${kind}`, () => assert.equal(found(kind), 'ok'));

  const mapped = (which: string, flags: string) => `
real = mmap.mmap
mmap.mmap = lambda fd, size, flags, *more, **named: real(fd, size, ${flags} if ${which} else flags, *more, **named)`;

  test('tells shared memory from private memory', () => {
    const shared = 'flags & mmap.MAP_SHARED';
    const asPrivate = 'flags & ~mmap.MAP_SHARED | mmap.MAP_PRIVATE';
    const anonymous = found('areas', mapped(`${shared} and fd == -1`, asPrivate));
    assert.match(anonymous, /^what area 3 has of a child's is /);
    assert.match(
      found('areas', mapped(`${shared} and fd != -1`, asPrivate)),
      /^what area 2 has of a child's/,
    );
    const asShared = 'flags & ~mmap.MAP_PRIVATE | mmap.MAP_SHARED';
    const isPrivate = 'flags & mmap.MAP_PRIVATE';
    assert.match(
      found('areas', mapped(`${isPrivate} and fd == -1`, asShared)),
      /^what area 0 has of a child's/,
    );
    assert.match(
      found('areas', mapped(`${isPrivate} and fd != -1`, asShared)),
      /^what area 1 has of a child's/,
    );
  });

  test('finds that a shared area is not of its memfd', () => {
    const other = `
real, other = mmap.mmap, os.memfd_create("other")
os.ftruncate(other, 1 << 20)
mmap.mmap = lambda fd, size, flags, *more, **named: real(other if flags & mmap.MAP_SHARED and fd != -1 else fd, size, flags, *more, **named)`;
    assert.match(found('areas', other), /^what the memfd has of piece 0 is /);
  });

  test('finds that an opening is not one of its own', () => {
    const again = `
real, seen = os.open, {}
def open(path, *more):
    return os.dup(seen[path]) if path in seen else seen.setdefault(path, real(path, *more))
os.open = open`;
    assert.match(found('descriptors', again), /^the offset in file 0 is /);
  });

  test('finds that a counter is lost, and does not wait for it', () => {
    const lost = 'real = os.eventfd\nos.eventfd = lambda count, *more: real(0, *more)';
    assert.match(found('descriptors', lost), /Resource temporarily unavailable/);
  });

  /** The same system call, of something that nobody wakes. */
  const stuckIn: Record<string, string> = {
    Sleep: 'while True: many.libc.nanosleep(ctypes.byref(many.Timespec(10**6, 0)), None)',
    Read: 'os.read(os.pipe()[0], 1)',
    Lock: 'lock = threading.Lock(); lock.acquire(); lock.acquire()',
    Select: 'import select; select.select([os.pipe()[0]], [], [], 10**6)',
  };

  test('finds a thread that is not woken, whatever it waits for', () => {
    for (const kind of ['Sleep', 'Read', 'Lock', 'Select']) {
      const asleep = `
real, calls = many.${kind}.wait, many.${kind}().calls
first = threading.Lock()
many.ANSWER_SECONDS = 3
def wait(self):
    if first.acquire(False):
        ${stuckIn[kind]}
    return real(self)
many.${kind}.wait = wait`;
      assert.match(found('threads', asleep), new RegExp(`^${kind}: threads that were woken is 4 and was 5$`));
    }
  });

  test('finds a thread that waits for something else', () => {
    const reads = 'many.ANSWER_SECONDS = 3\nmany.Select.wait = lambda self: os.read(os.pipe()[0], 1)';
    assert.match(found('threads', reads), /^thread 3 is in system call 0 and not in one of /);
  });

  test('finds a limit that is not what it was', () => {
    const longer = (call: string, argument: number) => `
real = many.libc.${call}
class Longer:
    def __getattr__(self, name):
        return getattr(ctypes.CDLL(None), name)
    def ${call}(self, *given):
        given[${argument}]._obj.seconds = 5 * 10**6
        return real(*given)
many.libc = Longer()`;
    assert.match(found('threads', longer('select', 4)), /select has 49\d{5} s left of its limit/);
    assert.match(found('threads', longer('nanosleep', 0)), /a sleeper has 49\d{5} s left of its limit/);
  });
});
