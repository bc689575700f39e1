// Boots one guest per release, without a crash kernel: a program that holds a descriptor of every kind is
// read out of the guest's memory, killed, restored by CRIU from the images, and looks at each descriptor
// itself.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { captureProcesses } from '../../../src/capture/index.ts';
import { writeImages } from '../../../src/criu/images/index.ts';
import type { CaptureResult } from '../../../src/model/group.ts';
import type { Kernel } from '../../../src/vmcore/kernel.ts';
import { bootTestGuest, release, scratchDirectory, type TestGuest, wasComputing } from '../harness.ts';
import { installNodeProgram, restoreIn } from '../node-programs.ts';

const subject = join(import.meta.dirname, 'descriptors.py');
const pattern = '[p]ython3 /root/descriptors.py';

suite(`files of processes on ${release}`, () => {
  let guest: TestGuest;
  let restoreProgram: string;
  const scratch = scratchDirectory();

  before(async () => {
    guest = await bootTestGuest('files', { install: false });
    await guest.copyIn(subject, '/root/descriptors.py');
    restoreProgram = await installNodeProgram(guest, 'restore');
  });
  after(async () => {
    scratch.remove();
    await guest?.down();
  });

  async function endSubject(): Promise<void> {
    const pids = await guest.sh(`pgrep -f '${pattern}' || true`);
    await guest.kill(pids.split('\n').filter(Boolean).map(Number));
  }

  async function startSubject(): Promise<number> {
    await endSubject();
    await guest.sh('rm -rf /root/d /tmp/deep');
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

  /**
   * Captures processes out of a dump of the running guest, made when none of them computes, which is refused;
   * the dump stays open for `use`.
   */
  async function captured<T>(
    roots: readonly number[],
    use: (result: CaptureResult, kernel: Kernel) => T,
  ): Promise<T> {
    const { found } = await guest.dumpUntil(join(scratch.path, 'vmcore'), (kernel) => {
      const result = captureProcesses(kernel, { roots, includeDescendants: true });
      return wasComputing(result) ? undefined : { found: use(result, kernel) };
    });
    return found;
  }

  async function restore(images: string): Promise<void> {
    assert.deepEqual(await restoreIn(guest, restoreProgram, images), []);
  }

  async function reasons(root: number): Promise<string[]> {
    return captured([root], ({ refused }) => refused.flatMap((refusal) => [...refusal.reasons]));
  }

  test('descriptors of every kind come back as they were', async () => {
    const expected = await lookAround(await startSubject());
    const pid = await startSubject();
    const images = join(scratch.path, 'images');
    await captured([pid], ({ groups, refused }, kernel) => {
      assert.deepEqual(refused, []);
      assert.equal(groups.length, 1);
      const notes = groups[0]!.processes.flatMap(({ findings }) => findings.notes);
      const lost = '1 connections to @descriptors that waited to be accepted are lost';
      assert.ok(notes.includes(`${lost}, with 10 bytes that had been sent through them`), notes.join('\n'));
      writeImages(groups[0]!, kernel.physical, images);
    });
    await endSubject();
    await restore(images);
    const found = await lookAround(pid);
    for (const [what, value] of Object.entries(expected)) assert.deepEqual(found[what], value, what);
  });

  test('a server of terminals comes back without the client that was attached', async () => {
    await guest.sh('tmux new-session -d -s kept sh');
    await guest.background('sleep 600 | TERM=xterm script -qfc "tmux attach -t kept" /dev/null >/dev/null');
    await guest.until('tmux list-clients | grep -q kept', 30);
    await guest.sh("tmux send-keys -t kept 'X=kept; echo $X now' Enter");
    await guest.until('tmux capture-pane -p -t kept | grep -qx "kept now"', 30);
    const server = Number(await guest.sh("tmux display-message -p '#{pid}'"));
    const images = join(scratch.path, 'server');
    const notes = await captured([server], ({ groups, refused }, kernel) => {
      assert.deepEqual(refused, []);
      writeImages(groups[0]!, kernel.physical, images);
      return groups[0]!.processes.flatMap(({ findings }) => findings.notes).join('\n');
    });
    assert.match(notes, /the terminal \/dev\/pts\/\d+ of PID \d+ \(script\) is hung up/);
    assert.match(notes, /the connection from PID \d+ \(tmux: client\) .*is closed/);
    const family = await guest.sh(`echo ${server}; pgrep -P ${server}`);
    await guest.kill(family.split('\n').map(Number));
    await guest.sh('rm -f /tmp/tmux-0/default');
    await restore(images);
    await guest.sh("tmux send-keys -t kept 'echo X is $X' Enter");
    await guest.until('tmux capture-pane -p -t kept | grep -qx "X is kept"', 30);
    assert.equal(await guest.sh('tmux list-clients; tmux kill-server'), '');
  });

  test('a TCP connection to a process that is not protected comes back, and is lost by a reset', async () => {
    await guest.background('exec socat -u TCP-LISTEN:7070,reuseaddr OPEN:/dev/null');
    await guest.until('ss -ltn | grep -q :7070', 20);
    const connect = 'import socket, time; s = socket.create_connection(("127.0.0.1", 7070)); time.sleep(600)';
    const pid = await guest.background(`exec python3 -c '${connect}'`);
    await guest.until(`ss -tnp state established | grep -q pid=${pid}`, 20);
    const found = await captured([pid], ({ groups }) =>
      groups.flatMap(({ processes }) =>
        processes.flatMap(({ findings }) => findings.losses.map(({ what }) => what)),
      ),
    );
    await guest.sh(`kill ${pid}; pkill socat || true`);
    assert.match(found.join('\n'), /is reset: its other end was that of PID \d+ \(socat\)/);
  });

  test('a pipe to a process that is not protected is refused by its name', async () => {
    const shell = await guest.background('yes | sleep 600');
    const yes = Number(await guest.until(`pgrep -P ${shell} -x yes`, 20));
    const found = await reasons(yes);
    const sleeper = await guest.sh(`pgrep -P ${shell} -x sleep`);
    await guest.sh(`kill ${shell} ${yes}`);
    assert.deepEqual(found, [`has a pipe to PID ${sleeper} (sleep), which is not protected (fd 1)`]);
  });

  test('a controlling terminal that no protected process has open is noted', async () => {
    const script = [
      'import os, pty, time',
      'master, slave = pty.openpty()',
      'name = os.ttyname(slave)',
      'if os.fork() == 0: os.setsid(); os.open(name, os.O_RDWR); os.closerange(0, 20)',
      'time.sleep(1000)',
    ].join('\n');
    const holder = await guest.background(`exec python3 -c '${script}'`);
    const sleeper = Number(await guest.until(`pgrep -P ${holder}`, 30));
    await guest.until(`cut -d' ' -f7 /proc/${sleeper}/stat | grep -vx 0`, 30);
    await guest.untilState(sleeper, 'S');
    const notes = await captured([sleeper], ({ groups, refused }) => {
      assert.deepEqual(refused, []);
      return groups.flatMap(({ processes }) => processes.flatMap(({ findings }) => findings.notes));
    });
    await guest.sh(`kill -9 ${sleeper} ${holder}`);
    assert.match(notes.join('\n'), /pts\/?\d+ is no longer its controlling terminal/);
  });

  test('files that the kernel writes anew, and directories in memory, are noted if they were read in part', async () => {
    const script = [
      'import ctypes, os, time',
      'for f in "/proc/meminfo", "/proc/self/mem": os.lseek(os.open(f, os.O_RDONLY), 10, 0)',
      'os.open("/proc/stat", os.O_RDONLY)',
      'libc = ctypes.CDLL(None)',
      'libc.syscall(217, os.open("/dev/shm", os.O_RDONLY), ctypes.create_string_buffer(48), 48)',
      'libc.syscall(217, os.open("/etc", os.O_RDONLY), ctypes.create_string_buffer(48), 48)',
      'time.sleep(1000)',
    ].join('\n');
    const reader = await guest.background(`touch /dev/shm/a /dev/shm/b; exec python3 -c '${script}'`);
    await guest.until(
      `ls -l /proc/${reader}/fd | grep -q /etc && grep -q '^230 ' /proc/${reader}/syscall`,
      30,
    );
    const notes = await captured([reader], ({ groups, refused }) => {
      assert.deepEqual(refused, []);
      return groups.flatMap(({ processes }) => processes.flatMap(({ findings }) => findings.notes));
    });
    await guest.sh(`kill -9 ${reader}; rm /dev/shm/a /dev/shm/b`);
    assert.deepEqual(
      notes.filter((note) => note.includes('anew')),
      [
        '/proc/meminfo is open at byte 10 and is written anew: read on from there, it need not fit what was read before',
        'the directory /dev/shm is open beyond its first entry and is made anew: read on from there, entries can be missing or come twice',
      ],
    );
  });

  test('a terminal whose master somebody else holds is refused by its name', async () => {
    await guest.sh('tmux new-session -d "exec sleep 600"');
    const sleeper = Number(await guest.until('pgrep -n -x sleep', 20));
    const server = await guest.sh('pgrep -o tmux');
    const found = await reasons(sleeper);
    await guest.sh('tmux kill-server');
    assert.match(
      found.join('\n'),
      new RegExp(
        `has the terminal /dev/pts/\\d+, whose master is held by PID ${server} \\(tmux: server\\), which is not protected`,
      ),
    );
  });
});
