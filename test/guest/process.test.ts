// Boots one guest per release, without a crash kernel: processes are read out of its memory while they live,
// compared with what CRIU itself says of them, killed, and restored by CRIU from our images.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, type TestContext, test } from 'node:test';
import { captureProcesses } from '../../src/capture/index.ts';
import { type ImageSummary, writeImages } from '../../src/criu/images/index.ts';
import { wasInUserMode } from '../../src/linux/current.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { runningTasks } from '../../src/linux/readers/running-tasks.ts';
import type { CaptureResult } from '../../src/model/group.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { bootTestGuest, release, scratchDirectory, type TestGuest, wasComputing } from './harness.ts';
import { compareImages } from './images.ts';
import { installNodeProgram, restoreIn } from './node-programs.ts';

const programs = join(import.meta.dirname, 'programs');

suite(`processes on ${release}`, () => {
  let guest: TestGuest;
  let restoreProgram: string;
  const scratch = scratchDirectory();

  before(async () => {
    guest = await bootTestGuest('process', { install: false });
    await guest.program('state');
    await guest.program('parked');
    await guest.program('pending');
    await guest.program('vfork');
    for (const name of ['sequence.py', 'peculiar.py', 'lease.py', 'endings.py'])
      await guest.copyIn(join(programs, name), `/root/${name}`);
    restoreProgram = await installNodeProgram(guest, 'restore');
  });
  after(async () => {
    scratch.remove();
    await guest?.down();
  });

  /**
   * Captures processes out of a dump of the living guest that shows the state that is wanted; images of the
   * only group are written to `directory` if one is named.
   */
  async function capture(
    roots: readonly number[],
    directory?: string,
    isState: (kernel: Kernel, result: CaptureResult) => boolean = () => true,
  ): Promise<CaptureResult & { images?: ImageSummary }> {
    return guest.dumpUntil(join(scratch.path, 'vmcore'), (kernel) => {
      const result = captureProcesses(kernel, { roots, includeDescendants: true });
      if (!isState(kernel, result)) return undefined;
      if (directory === undefined) return result;
      assert.deepEqual(result.refused, []);
      assert.equal(result.groups.length, 1);
      return { ...result, images: writeImages(result.groups[0]!, kernel.physical, directory) };
    });
  }

  /**
   * Captures when no thread computes on a CPU, which is refused, kills and restores. `whenCaptured` is a
   * shell script that runs before the processes are killed.
   */
  async function bringBack(
    name: string,
    roots: readonly number[],
    whenCaptured = ':',
  ): Promise<ImageSummary & { notes: readonly string[]; groups: CaptureResult['groups'] }> {
    const directory = join(scratch.path, name);
    const { images = assert.fail(), groups } = await capture(
      roots,
      directory,
      (_, result) => !wasComputing(result),
    );
    // Stopped first, so that a shell does not go on to its next command when its child is killed.
    await guest.sh(`kill -STOP ${roots.join(' ')}`);
    await guest.sh(whenCaptured);
    await guest.kill(groups.flatMap(({ processes }) => processes.map(({ pid }) => pid)));
    assert.deepEqual(await restoreIn(guest, restoreProgram, directory), []);
    const notes = groups.flatMap(({ processes }) => processes.flatMap(({ findings }) => findings.notes));
    return { ...images, notes, groups };
  }

  /**
   * A program that keeps the second CPU from all others, of which the kernel takes care otherwise. `end` is a
   * shell script that ends it; the end of the test does as well.
   */
  async function hogCpu(t: TestContext): Promise<{ pid: number; end: string }> {
    // Linux 6.12 has a server for those that a real-time program keeps waiting.
    const servers = await guest.sh('ls /sys/kernel/debug/sched/fair_server/cpu*/runtime 2>/dev/null || true');
    const settings = ['/proc/sys/kernel/sched_rt_runtime_us', ...servers.split('\n').filter(Boolean)];
    const usual = (await guest.sh(`cat ${settings.join(' ')}`)).split('\n');
    const reset = settings.map((file, i) => `echo ${usual[i]} >${file}`).join('; ');
    t.after(() => guest.sh(reset));
    await guest.sh(settings.map((file, i) => `echo ${i === 0 ? -1 : 0} >${file}`).join('; '));
    const pid = await guest.background('exec chrt -f 50 taskset -c 1 sh -c "while :; do :; done"');
    const end = `kill -9 ${pid} 2>/dev/null; ${reset}`;
    t.after(() => guest.sh(end));
    return { pid, end };
  }

  async function startState(): Promise<number> {
    const earlier = (await guest.sh('pgrep -f "^state /tmp" || true')).split('\n').filter(Boolean);
    await guest.kill(earlier.map(Number));
    await guest.sh('rm -f /tmp/state');
    const pid = await guest.background('exec state /tmp/state');
    await guest.until('grep -q "ok 3" /tmp/state', 60);
    return pid;
  }

  test('a process with everything comes back with everything: threads, memory, signals, timers, children', async () => {
    const pid = await startState();
    const images = await bringBack('everything', [pid]);
    assert.equal(images.syntheticRootPid, undefined);
    const lost = [/NUMA memory policy \(set_mempolicy\)/, /NUMA memory policy \(mbind\)/];
    for (const note of [
      ...lost,
      /PR_MCE_KILL/,
      /PR_SET_PTRACER/,
      /nice value 7 of its autogroup/,
      /SO_PEERCRED .* user 1000/,
    ])
      assert.match(images.notes.join('\n'), note);
    await guest.sh(': > /tmp/state');
    await guest.until('test $(wc -l < /tmp/state) -ge 3', 30);
    const lines = await guest.sh('cat /tmp/state');
    assert.doesNotMatch(lines, /lost/);
    assert.match(lines, /^ok \d+$/m);
    const tree = await guest.sh(`ps -o stat=,comm= -p ${pid} --ppid ${pid}`);
    assert.match(tree, /state-of-things/);
    assert.match(tree, /^Z/m);
    assert.match(tree, /^T/m);
  });

  test('our images say what CRIU says of the same process', async () => {
    const pid = await startState();
    await guest.sh(`kill -STOP ${pid}; rm -rf /root/theirs`);
    await guest.untilState(pid, 'T');
    const [ours, theirs] = [join(scratch.path, 'ours'), join(scratch.path, 'theirs')];
    await capture([pid], ours);
    await guest.sh(`mkdir /root/theirs; criu dump -t ${pid} -D /root/theirs --leave-stopped -o dump.log`);
    await guest.copyOut('/root/theirs', theirs);
    compareImages(pid, theirs, ours);
    await guest.sh(`kill -CONT ${pid}`);
  });

  test('both ends of a pipe come back without their parent, and not a byte is lost or doubled', async () => {
    const parent = await guest.background(
      'python3 /root/sequence.py write | python3 /root/sequence.py check /tmp/sequence; true',
    );
    await guest.until('test "$(cut -d" " -f1 /tmp/sequence)" -gt 100', 60);
    const ends = (await guest.sh(`pgrep -P ${parent}`)).split('\n').map(Number);
    assert.equal(ends.length, 2);
    const images = await bringBack('pipe', ends);
    assert.deepEqual([...images.roots].sort(), ends.sort());
    assert.notEqual(images.syntheticRootPid, undefined);
    const seen = Number(await guest.sh('cat /tmp/sequence'));
    await guest.until(`test "$(cut -d' ' -f1 /tmp/sequence)" -gt ${seen + 600}`, 60);
    assert.match(await guest.sh('cat /tmp/sequence'), /^\d+ *$/);
    await guest.sh(`kill -9 ${ends.join(' ')}`);
  });

  test('a sleep that is made again lasts as long as it would have', async () => {
    const pid = await guest.background(
      'cut -d" " -f1 /proc/uptime > /tmp/begun; sleep 40; cut -d" " -f1 /proc/uptime > /tmp/ended',
    );
    const sleeper = Number(await guest.until(`pgrep -P ${pid} -x sleep`, 30));
    const uptime = 'cut -d" " -f1 /proc/uptime';
    await guest.until(`test "$(${uptime} | cut -d. -f1)" -gt $(($(cut -d. -f1 /tmp/begun) + 10))`, 60);
    // A sleep that was stopped goes on by restart_syscall(2), of which the next kernel knows nothing.
    await guest.sh(`kill -STOP ${sleeper}`);
    await guest.untilState(sleeper, 'T');
    await guest.sh(`kill -CONT ${sleeper}`);
    await guest.until(`grep -q '^219 ' /proc/${sleeper}/syscall`, 30);
    await bringBack('sleep', [pid]);
    const back = Number(await guest.sh(uptime));
    await guest.until('test -s /tmp/ended', 60);
    const [begun = 0, ended = 0] = (await guest.sh('cat /tmp/begun /tmp/ended')).split('\n').map(Number);
    assert.ok(ended - begun > 39.9, `${ended - begun} s`);
    // One that had begun anew would end 40 s after it was back.
    const late = Math.max(begun + 40, back);
    assert.ok(ended < (late + back + 40) / 2, `begun ${begun}, back ${back}, ended ${ended}`);
  });

  test('threads go on in calls of which the kernel knew more than it showed', async (t) => {
    const pid = await guest.background('exec parked /tmp/parked 2>&1');
    await guest.until('grep -q ready /tmp/parked', 30);
    // The sleeping thread does not run when its time is over.
    const hog = await hogCpu(t);
    const hasWoken = (name: string): string =>
      `grep -l '^Name:.${name}' /proc/${pid}/task/*/status | xargs grep -q '^State:.R'`;
    await guest.until(hasWoken('sleeping'), 60);
    // Nor does the one whose operation is done when this one raises the semaphore.
    const raise = 'l.semop(l.semget(0x4f5a0001, 0, 0), b"\\0\\0\\1\\0\\0\\0", 1)';
    await guest.sh(`taskset -c 0 python3 -c 'import ctypes; l = ctypes.CDLL(None); exit(${raise})'`);
    await guest.until(hasWoken('served'), 30);
    // This is still the kernel that has the set.
    const { groups } = await bringBack('calls', [pid], `${hog.end}; ipcrm -S 0x4f5a0001`);
    const [{ threads, findings } = assert.fail()] = groups.flatMap(({ processes }) => processes);
    const callOf = (name: string) => threads.find(({ comm }) => comm === name)?.syscall;
    assert.equal(callOf('suspended')?.outcome, 'restart');
    assert.equal(callOf('sending')?.outcome, 'restart');
    assert.equal(callOf('reading')?.outcome, 'in-doubt');
    assert.deepEqual(callOf('sleeping'), {
      outcome: 'result',
      syscall: 'clock_nanosleep',
      reason: 'its time was over',
    });
    // Where its stack does not show the operation, it is in doubt, and is told so below.
    assert.equal(callOf('served')?.syscall, 'semop');
    const isShown = callOf('served')?.outcome === 'result';
    t.diagnostic(`the operation that was done: ${callOf('served')?.outcome}`);
    assert.deepEqual(
      findings.inDoubt.map(({ syscall }) => syscall),
      isShown ? ['read'] : ['read', 'semop'],
    );
    await guest.sh(`kill -HUP ${pid}`);
    await guest.until('grep -q done /tmp/parked', 30);
    const lines = (await guest.sh('cat /tmp/parked')).split('\n');
    const hasKeys = (await guest.sh('grep -c -w pku /proc/cpuinfo || true')) !== '0';
    if (!hasKeys) t.diagnostic('this processor has no memory protection keys: nothing is said about them');
    for (const line of [
      hasKeys ? 'keys: on its page 1, rights 2, of another thread 1, next is the free one 1' : 'keys: none',
      'sigsuspend: errno 4, USR1 1, TERM 1, USR2 0',
      'send: 4',
      'received: in order 1, 4 last, more -1',
      'read: -1, errno 4',
      'nanosleep: 0',
      'new memory: locked 1, resident 4 kB',
      `semop: ${isShown ? 0 : -1}, left 0`,
    ])
      assert.ok(lines.includes(line), `${line} in ${lines.join('; ')}`);
  });

  test('who waits in vfork goes on, and so does the child, with memory of its own', async () => {
    const pid = await guest.background('exec vfork /tmp/vfork');
    const childrenIn = (parent: number, call: string): string =>
      `grep -l '^${call} ' $(pgrep -P ${parent} | sed 's|.*|/proc/&/syscall|') /dev/null`;
    // openat and clock_nanosleep.
    await guest.until(`test $(${childrenIn(pid, '257')} | wc -l) = 2`, 30);
    await guest.until(childrenIn(pid, '230'), 30);
    const { groups, notes } = await bringBack('vfork', [pid]);
    const [parent, ...children] = groups.flatMap(({ processes }) => processes);
    assert.equal(children.length, 3);
    const waits = parent?.threads.filter(({ syscall }) => /^(vfork|clone3?)$/.test(syscall.syscall ?? ''));
    assert.deepEqual(
      waits?.map(({ syscall, registers }) => [syscall.outcome, registers.ax]).sort(),
      children.map((child) => ['result', BigInt(child.pid)]).sort(),
    );
    assert.match(notes.join('\n'), /no longer waits in vfork/);
    await guest.sh('touch /tmp/vfork.go; echo hello >/tmp/vfork.fifo');
    await guest.until('grep -q done /tmp/vfork', 30);
    const lines = (await guest.sh('cat /tmp/vfork /tmp/vfork.copy')).split('\n');
    // What the child has written to memory since is not the parent's, and so is what went wrong.
    for (const line of [
      'vfork: status 7, written 1, stack whole',
      'spawn: error 0, status 0',
      'missing: error 0, status 127',
      'hello',
    ])
      assert.ok(lines.includes(line), `${line} in ${lines.join('; ')}`);
  });

  test('a child of vfork in the middle of execve makes that call again', async () => {
    await guest.sh('cp /bin/sh /root/held; echo 3600 >/proc/sys/fs/lease-break-time');
    await guest.background('exec python3 /root/lease.py /root/held >/tmp/lease');
    await guest.until('grep -q ready /tmp/lease', 30);
    const call = 'import subprocess; print(subprocess.call(["/root/held", "-c", "exit 9"]))';
    const pid = await guest.background(`exec python3 -c '${call}' >/tmp/held`);
    const child = Number(await guest.until(`pgrep -P ${pid}`, 30));
    await guest.until(`grep -q '^59 ' /proc/${child}/syscall`, 30);
    await guest.untilState(pid, 'D');
    const { groups } = await bringBack('execve', [pid]);
    const processes = groups.flatMap(({ processes: members }) => members);
    assert.deepEqual(
      processes.map(({ threads: [thread] }) => thread?.syscall.outcome),
      ['result', 'restart'],
    );
    await guest.until(`grep -q '^59 ' /proc/${child}/syscall`, 30);
    await guest.sh('touch /root/held.free');
    await guest.until('grep -qx 9 /tmp/held', 30);
  });

  test('timers, pending signals, stopped children and a FIFO are what they would have been', async () => {
    const start = async (name: string): Promise<number> => {
      const pid = await guest.background(
        `exec pending /tmp/${name} ${name.includes('quiet') ? 'quiet' : ''}`,
      );
      await guest.until(`grep -q ready /tmp/${name}`, 30);
      return pid;
    };
    const result = async (name: string): Promise<string[]> => {
      await guest.sh(`touch /tmp/${name}.go`);
      await guest.until(`grep -q done /tmp/${name}`, 60);
      return (await guest.sh(`cat /tmp/${name}`)).split('\n');
    };
    for (const kind of ['', '-quiet']) {
      await start(`stayed${kind}`);
      const pid = await start(`left${kind}`);
      const { notes } = await bringBack(`left${kind}`, [pid]);
      assert.match(notes.join('\n'), /its timers on the wall clock are cancelled/);
      const stayed = await result(`stayed${kind}`);
      // The wall clock has gone on without the others.
      const expected = stayed.map((line) => (line === 'cancelled: no' ? 'cancelled: yes' : line));
      assert.deepEqual(await result(`left${kind}`), expected);
    }
  });

  test('a process that was being killed has ended: others hear of it as they would have', async (t) => {
    const thaw = 'fsfreeze -u /srv/ending 2>/dev/null || true';
    t.after(() => guest.sh(thaw));
    await guest.sh(
      'truncate -s 16M /var/tmp/ending.img; mkfs.ext4 -q /var/tmp/ending.img; mkdir -p /srv/ending; ' +
        'mount -o loop /var/tmp/ending.img /srv/ending; touch /srv/ending/nothing; fsfreeze -f /srv/ending',
    );
    const pid = await guest.background(
      'exec python3 /root/endings.py /tmp/endings /srv/ending >/tmp/endings.err 2>&1',
    );
    await guest.until('grep -q ready /tmp/endings && test $(pgrep -c -x victim) = 3', 30);
    const victims = (await guest.sh('pgrep -x victim')).split('\n').map(Number);
    for (const victim of victims) await guest.untilState(victim, 'D');
    // Nothing ends them until the file system is thawed.
    await guest.sh(`kill -9 ${victims.join(' ')}`);
    const { notes, groups } = await bringBack('endings', [pid], thaw);
    assert.equal(notes.filter((note) => note === 'was being killed, and has ended: signal 9').length, 2);
    const states = groups.flatMap(({ processes }) => processes.map(({ state }) => state));
    assert.deepEqual(states.sort(), ['alive', 'alive', 'alive', 'zombie', 'zombie']);
    await guest.until('grep -q done /tmp/endings && grep -q waited /tmp/endings', 30);
    await guest.until('grep -q ignored /tmp/endings', 30);
    const lines = (await guest.sh('cat /tmp/endings')).split('\n');
    for (const line of [
      'pipe: 0',
      "socket: b'last', b''",
      'lock: taken',
      'wait: signal 9',
      'told: its own, code 2, status 9, user 0',
      'waited: signal 9',
      'ignored: no child',
    ])
      assert.ok(lines.includes(line), `${line} in ${lines.join('; ')}`);
    assert.equal(await guest.sh(`ps -o stat= --ppid ${pid} | grep -c Z || true`), '0');
  });

  test('what cannot be kept is refused by name', async (t) => {
    /** Starts what becomes a program of that name, itself or its child. */
    const start = async (script: string, comm: string): Promise<number> => {
      const pid = await guest.background(script);
      await guest.until(`grep -qx ${comm} /proc/${pid}/comm || pgrep -P ${pid} -x ${comm}`, 30);
      return pid;
    };
    /** What the kernel of this release, or its processor, does not have is left out. */
    const peculiar = async (what: string, reason: RegExp): Promise<[RegExp, number][]> => {
      const output = `/tmp/peculiar.${what}`;
      const pid = await guest.background(`exec python3 /root/peculiar.py ${what} >${output} 2>&1`);
      const line = await guest.until(`grep . ${output}`, 30);
      assert.match(line, /^(ready$|impossible: (Function not implemented|Invalid argument))/);
      return line === 'ready' ? [[reason, pid]] : [];
    };
    const cases: [RegExp, number][] = [
      ...(await peculiar('key', /has keys in its session keyring \(user peculiar\)/)),
      ...(await peculiar('execute-only', /the memory area \S+ can be executed only/)),
      ...(await peculiar('mseal', /is sealed/)),
      ...(await peculiar('aio', /has an asynchronous I\/O context \(io_setup\) with requests in flight/)),
      ...(await peculiar('dnotify', /has \/root open and watches it by signals \(F_NOTIFY\) \(fd \d+\)/)),
      ...(await peculiar(
        'pressure',
        /has a trigger for pressure \(PSI\) on \/proc\/pressure\/memory, which an epoll watches/,
      )),
      ...(await peculiar('reuseport', /has a socket with a program that chooses among sockets/)),
      [/is in a uts namespace of its own/, await start('exec unshare --uts sleep 1000', 'sleep')],
      [/is in a PID namespace/, await start('exec unshare --pid --fork sleep 1000', 'sleep')],
      // Whatever sleeps later would have the probe, too.
      ...(await peculiar('uprobe', /has probes of a tracer in its code/)),
    ];
    // Off its CPU, and often in an interrupt, its registers would be in memory, and it would come back.
    const hog = await hogCpu(t);
    cases.push([/was computing on/, hog.pid]);
    // Of nobody who is protected.
    const left =
      'import ctypes; ctypes.CDLL("librt.so.1").mq_open(b"/peculiar", 0o102, 0o600, None); ' +
      'ctypes.CDLL(None).shmget(0, 4096, 0o600)';
    await guest.sh(`python3 -c '${left}'`);
    const { groups, refused, notes } = await capture(
      cases.map(([, pid]) => pid),
      undefined,
      (kernel) =>
        runningTasks(kernel).cpuOf.get(findTaskByPid(kernel, hog.pid) ?? 0n) === 1 &&
        wasInUserMode(kernel, 1, hog.pid) === true,
    );
    assert.match(notes.join('\n'), /System V shared memory segment \d+ of user 0 went with the kernel/);
    assert.match(notes.join('\n'), /POSIX message queue \/peculiar of user 0 went with the kernel/);
    await guest.sh(`pkill -9 sleep; kill -9 ${cases.map(([, pid]) => pid).join(' ')} || true`);
    assert.deepEqual(
      groups.flatMap(({ processes }) => processes.map(({ pid, comm }) => `${pid} ${comm}`)),
      [],
    );
    assert.ok(cases.length >= (release === 'trixie' ? 10 : 9), `${cases.length} cases`);
    for (const [reason, pid] of cases) {
      const reasons = refused.filter((refusal) => refusal.pid === pid).flatMap((refusal) => refusal.reasons);
      const all = refused.flatMap((refusal) => refusal.reasons);
      assert.ok(
        [...reasons, ...all].some((text) => reason.test(text)),
        `${reason} in ${JSON.stringify(refused)}`,
      );
    }
  });
});
