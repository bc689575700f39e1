// Boots one armed guest per release and kills its kernel: a program with a descriptor of every kind, a
// service that talks to the journal and a program that writes files go on in the crash world.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { bootTestGuest, release, type TestGuest } from '../harness.ts';

const subject = join(import.meta.dirname, 'descriptors.py');
const pattern = '[p]ython3 /root/descriptors.py';

/** Writes a numbered line a second to a file on the disk, never synchronised, and to one on tmpfs. */
const writer = `import itertools, time
files = [open(name, 'w', buffering=1) for name in ('/root/unsynced', '/tmp/on-tmpfs')]
for n in itertools.count(1):
    for file in files: print('line', n, file=file)
    time.sleep(1)`;
/** Writes to a file on tmpfs that has got another name since it was opened. */
const renamer = `import os, time
file = open('/dev/shm/first', 'w', buffering=1)
print('old', file=file)
os.link('/dev/shm/first', '/dev/shm/second')
os.remove('/dev/shm/first')
while True:
    time.sleep(1)
    print('new', file=file)`;
const talker = `import itertools, time
for n in itertools.count(1):
    print('tick', n, flush=True)
    time.sleep(1)`;
/** Keeps its socket to the log open between the messages. */
const caller = `import itertools, syslog, time
for n in itertools.count(1):
    syslog.syslog('call %d' % n)
    time.sleep(1)`;
/**
 * Makes a file, replaces one and renames one when it is told to, just before the panic: the journal does not
 * have it yet. All of them stay open.
 */
const saver = `import os, signal, time
os.makedirs('/root/saver'); os.chdir('/root/saver')
def make(name, text):
    file = open(name, 'w', buffering=1)
    print(text, file=file)
    return file
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
make('current', 'older')
log = make('log', 'first')
make('ready', '')
os.sync()
signal.sigwait([signal.SIGUSR1])
new = make('new', 'made')
current = make('current.new', 'newer')
os.rename('current.new', 'current')
os.rename('log', 'log.1')
after = make('log', 'second')
while True:
    time.sleep(1)
    for file in (new, current, log, after): print('line', file=file)`;
/**
 * Runs a program and maps a library that are then replaced by copies of themselves, as when their packages
 * are installed again, and of which most is in no memory by the time of the panic.
 */
const upgraded = `import ctypes, mmap, os, subprocess, sys, time
program, library = names = '/root/upgraded/program', '/root/upgraded/library.so'
copy = lambda source, to: subprocess.run(['cp', '-a', os.path.realpath(source), to], check=True)
if sys.executable != program:
    os.makedirs('/root/upgraded')
    copy(sys.executable, program)
    copy('/lib/x86_64-linux-gnu/libm.so.6', library)
    os.sync()
    os.execv(program, [program, *sys.argv])
files = [os.open(name, os.O_RDONLY) for name in names]
libm = ctypes.CDLL(library)
for name in names:
    copy(name, name + '.new')
    os.rename(name + '.new', name)
os.sync()
def in_memory(file):
    with mmap.mmap(file, 0, access=mmap.ACCESS_COPY) as area:
        pages = (ctypes.c_ubyte * (-(-len(area) // 4096)))()
        start = ctypes.c_char.from_buffer(area)
        ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(area)), pages)
        del start
    return '%d of %d' % (sum(page & 1 for page in pages), len(pages))
for file in files: os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
with open('/root/upgraded/ready', 'w') as ready: print(*map(in_memory, files), sep='\\n', file=ready)
for file in files: os.close(file)
while True: time.sleep(1000)`;
const upgradedFiles = ['program', 'library.so'] as const;
const programs = { writer, renamer, talker, caller, saver, upgraded };
const run = (name: keyof typeof programs): string => `python3 /root/${name}.py`;

/** Debian 12 has /tmp on its disk. */
const tmpfs = "$(findmnt -rnt tmpfs -o TARGET | grep -xE '/tmp|/dev/shm')";
/** Files on tmpfs that nobody has open, of every kind. */
const furnish = `for d in ${tmpfs}; do
  mkdir -p $d/kept/deep; chmod 2750 $d/kept/deep; chown 33:33 $d/kept/deep; cd $d/kept
  head -c 3000000 /dev/urandom >deep/random; truncate -s 9000000 deep/random; chmod 640 deep/random; touch -d 2001-02-03 deep/random
  printf 'two\nlines' >"$(printf 'a\nb ü')"; : >empty; mkfifo -m 600 fifo; ln deep/random other-name; setfattr -n user.what -v why empty
  ln -s deep/random short; ln -s "$(printf '%0300d' 7)" long; chown -h 33:33 long; echo gone >deleted; rm deleted
done`;
const inventory = `for d in ${tmpfs}; do cd $d/kept
  find . -printf '%P %y %m %U:%G %s %n %l\n' | sort; find . -type f -exec sha256sum {} + | sort; stat -c %y deep/random
  getfattr -n user.what empty; [ deep/random -ef other-name ] && echo same
done 2>&1`;

/** A link to a deleted file of /root/upgraded that a process maps. */
function mapped(pid: number, name: string): string {
  return `$(find /proc/${pid}/map_files -lname '/root/upgraded/${name}*(deleted)' | head -n1)`;
}

suite(`files across a panic of ${release}`, () => {
  let guest: TestGuest;
  let expected: Record<string, unknown>;
  let furniture: string;
  let subjectPid: number;
  let notes: string;
  let saverNotes: string;
  let upgradedPid: number;
  let talkerPid: number;

  async function startSubject(): Promise<number> {
    await guest.sh(
      `for p in $(pgrep -f '${pattern}'); do kill -9 $p; done; sleep 1; rm -rf /root/d /tmp/deep`,
    );
    const pid = await guest.background('exec python3 /root/descriptors.py /root/d >/root/d.log 2>&1');
    await guest.until('test -e /root/d/ready', 60);
    return pid;
  }

  async function lookAround(pid: number): Promise<Record<string, unknown>> {
    await guest.sh(`kill -USR2 ${pid}`);
    const found: Record<string, unknown> = JSON.parse(await guest.until('cat /root/d/found.json', 60));
    assert.equal(found.problem, undefined);
    return found;
  }

  before(async () => {
    guest = await bootTestGuest('filespanic');
    await guest.copyIn(subject, '/root/descriptors.py');
    expected = await lookAround(await startSubject());
    subjectPid = await startSubject();
    for (const [name, text] of Object.entries(programs))
      await guest.sh(`cat >/root/${name}.py <<'END'\n${text}\nEND`);
    const writerPid = await guest.background(`exec ${run('writer')}`);
    const callerPid = await guest.background(`exec ${run('caller')}`);
    const renamerPid = await guest.background(`exec ${run('renamer')}`);
    await guest.sh(
      `systemd-run --unit=talker --property=SyslogIdentifier=talker --property=SyslogLevel=warning ${run('talker')}`,
    );
    const saverPid = await guest.background(`exec ${run('saver')}`);
    upgradedPid = await guest.background(`exec ${run('upgraded')}`);
    await guest.until('test "$(wc -l </root/unsynced)" -gt 3', 60);
    talkerPid = Number(await guest.sh('systemctl show -p MainPID --value talker'));
    await guest.until('test "$(wc -l </root/upgraded/ready)" = 2', 60);
    // Else this would show nothing.
    for (const line of (await guest.sh('cat /root/upgraded/ready')).split('\n')) {
      const [inMemory = 0, pages = 0] = line.split(' of ').map(Number);
      assert.ok(inMemory > 0 && inMemory < pages, `${line} pages are in memory`);
    }
    await guest.protect([subjectPid, writerPid, talkerPid, callerPid, renamerPid, saverPid, upgradedPid]);
    await guest.sh(furnish);
    await guest.sh(`echo ${writerPid} >/run/writer.pid; printf '%10d\\n' ${callerPid} >/run/lock/caller`);
    await guest.sh('echo 1 >/run/others.pid; echo text >/run/writer.text');
    await guest.sh(`mkdir -m 750 /run/daemon; echo ${writerPid} >/run/daemon/pid`);
    await guest.until('test -e /dev/shm/second && ! test -e /dev/shm/first', 30);
    furniture = await guest.sh(inventory);
    await guest.until('test -e /root/saver/ready', 30);
    // Nobody else makes the journal write itself meanwhile.
    await guest.sh("systemctl stop '*.timer'; journalctl --sync; mount -o remount,commit=300 /; sync");
    await guest.sh(`kill -USR1 ${saverPid}; until grep -qs second /root/saver/log; do sleep 0.1; done`);
    const report = await guest.panic('sysrq', 0);
    notes = report.notes.join('\n');
    saverNotes = report.processes.find(({ pid }) => pid === saverPid)?.notes.join('\n') ?? '';
    const lost = report.processes.filter(({ outcome }) => outcome !== 'restored');
    assert.deepEqual(
      lost.map(({ comm, reasons }) => [comm, ...reasons]),
      [],
    );
    assert.deepEqual(
      report.notes.filter((note) => note.includes('tmpfs')),
      [],
    );
    const notFound = /another (directory|file system)|a directory no longer|another mode or owner/;
    assert.deepEqual(
      report.notes.filter((note) => notFound.test(note)),
      [],
    );
  });
  after(async () => {
    await guest?.down();
  });

  test('descriptors of every kind come back as they were', async () => {
    const found = await lookAround(subjectPid);
    for (const [what, value] of Object.entries(expected)) assert.deepEqual(found[what], value, what);
  });

  test('a file that was never synchronised and one on tmpfs have every line', async () => {
    const before = Number(await guest.sh('wc -l </root/unsynced'));
    await guest.until(`test "$(wc -l </root/unsynced)" -gt ${before + 2}`, 60);
    for (const file of ['/root/unsynced', '/tmp/on-tmpfs']) {
      const lines = (await guest.sh(`cat ${file}`)).split('\n');
      assert.deepEqual(
        lines,
        lines.map((_, i) => `line ${i + 1}`),
      );
    }
  });

  test('files that were made, replaced and renamed when the journal did not have it yet are what they were', async () => {
    // The journal did not have it: else this would show nothing.
    assert.equal(await guest.sh('cat /root/saver/.current.otherworld-*'), 'older');
    assert.match(
      notes,
      /^what the disk had as \/root\/saver\/current is \/root\/saver\/.current.otherworld-/m,
    );
    assert.match(saverNotes, /^\/root\/saver\/current is made anew: inode \d+ instead of \d+$/m);
    const names = await guest.sh("ls -A /root/saver | sed 's/otherworld-.*/otherworld/'");
    assert.equal(names, '.current.otherworld\ncurrent\nlog\nlog.1\nnew\nready');
    for (const [name, first] of Object.entries({
      new: 'made',
      current: 'newer',
      'log.1': 'first',
      log: 'second',
    })) {
      const before = Number(await guest.sh(`wc -l </root/saver/${name}`));
      await guest.until(`test "$(wc -l </root/saver/${name})" -gt ${before + 1}`, 60);
      const lines = (await guest.sh(`cat /root/saver/${name}`)).split('\n');
      assert.deepEqual(lines, [first, ...lines.slice(1).map(() => 'line')], name);
    }
  });

  test('what nobody had open on tmpfs is there again, as it was', async () => {
    assert.match(furniture, /^same$/m);
    assert.equal(await guest.sh(inventory), furniture);
  });

  test('a file on tmpfs that is open under a name which it lost goes on under its other name', async () => {
    await guest.until("grep -c new /dev/shm/second | grep -q '[0-9]'", 30);
    const before = Number(await guest.sh('grep -c new /dev/shm/second'));
    await guest.until(`test "$(grep -c new /dev/shm/second)" -gt ${before + 1}`, 60);
    assert.equal(await guest.sh('head -n1 /dev/shm/second'), 'old');
  });

  test('of what a boot makes anew only the files that name a living process are there again', async () => {
    const pids = await guest.sh('cat /run/writer.pid /run/lock/caller /run/daemon/pid');
    for (const pid of pids.trim().split(/\s+/)) await guest.sh(`kill -0 ${pid}`);
    assert.equal(await guest.sh('stat -c %a /run/daemon'), '750');
    assert.equal((await guest.exec(['cat', '/run/others.pid'])).status, 1);
    assert.equal((await guest.exec(['cat', '/run/writer.text'])).status, 1);
  });

  test('a program and a library that were replaced by copies are whole, what was in no memory included', async () => {
    for (const name of upgradedFiles) {
      const file = mapped(upgradedPid, name);
      assert.match(await guest.sh(`readlink ${file}`), / \(deleted\)$/);
      assert.equal(await guest.sh(`cmp ${file} /root/upgraded/${name} && echo same`), 'same');
    }
    assert.match(await guest.sh(`readlink /proc/${upgradedPid}/exe`), /program.* \(deleted\)$/);
  });

  test('a program goes on calling syslog', async () => {
    const calls = "journalctl -b -o cat | sed -n 's/^call //p'";
    const before = Number(await guest.until(`${calls} | tail -n1 | grep .`, 120));
    await guest.until(`test "$(${calls} | tail -n1)" -gt ${before + 2}`, 60);
  });

  test('a service goes on talking to the journal, which is another one now', async () => {
    await guest.sh(`kill -0 ${talkerPid}`);
    const ticks = "journalctl -b -t talker -p warning..warning -o cat | sed -n 's/^tick //p'";
    const before = Number(await guest.until(`${ticks} | tail -n1 | grep .`, 120));
    await guest.until(`test "$(${ticks} | tail -n1)" -gt ${before + 2}`, 60);
  });
});
