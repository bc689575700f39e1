// Boots one armed guest per release, starts processes with every kind of state, kills the kernel with a BUG,
// and lets the processes say themselves in the crash world whether they are what they were.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import type { IncidentReport } from '../../src/report/schema.ts';
import { assertRestored, bootTestGuest, release, type TestGuest } from './harness.ts';

const programs = join(import.meta.dirname, 'programs');

/** Two bytes per second for what is read from the disk of the root file system. */
const slowDown =
  'echo "$(lsblk -nro MAJ:MIN,TYPE | sed -n "s/ disk$//p" | head -n1) rbps=2" > /sys/fs/cgroup/slow/io.max';

suite(`resurrection on ${release}`, () => {
  let guest: TestGuest;
  let report: IncidentReport;
  let panicked = 0;
  let segmentsBefore = '';
  let meetingsBefore = '';
  const pids = {
    segments: 0,
    meetings: 0,
    state: 0,
    pipe: 0,
    sleeper: 0,
    appender: 0,
    caller: 0,
    pressure: 0,
    busy: [0, 0],
  };

  before(async () => {
    guest = await bootTestGuest('resurrection');
    await guest.sh('mkdir -p /srv/out; chmod 1777 /srv/out');
    await guest.program('state');
    await guest.program('segments');
    await guest.program('meetings');
    for (const name of ['sequence.py', 'appender.py', 'pressure.py'])
      await guest.copyIn(join(programs, name), `/srv/${name}`);
    pids.segments = await guest.background('exec segments /srv/out/segments');
    await guest.until('grep -q ready /srv/out/segments', 60);
    await guest.sh(`: > /srv/out/segments; kill -HUP ${pids.segments}`);
    await guest.until('grep -q done /srv/out/segments', 60);
    segmentsBefore = await guest.sh('cat /srv/out/segments; : > /srv/out/segments');
    pids.meetings = await guest.background('exec meetings /srv/out/meetings');
    await guest.until('grep -q ready /srv/out/meetings', 60);
    await guest.sh(`kill -HUP ${pids.meetings}`);
    await guest.until('grep -q done /srv/out/meetings', 60);
    meetingsBefore = await guest.sh('sed 1d /srv/out/meetings; : > /srv/out/meetings');
    pids.pressure = await guest.background('exec python3 /srv/pressure.py /srv/out/pressure');
    await guest.until('grep -q ready /srv/out/pressure', 60);
    pids.state = await guest.background('exec state /srv/out/state');
    // As on a server that has run for months: the others have numbers at the other end.
    await guest.sh('echo 4189999 > /proc/sys/kernel/ns_last_pid');
    pids.pipe = await guest.background(
      'python3 /srv/sequence.py write | python3 /srv/sequence.py check /srv/out/sequence; true',
    );
    pids.sleeper = await guest.background(
      'until [ -e /srv/out/go ]; do sleep 0.2; done; cat /proc/uptime > /srv/out/begun; sleep 150; cat /proc/uptime > /srv/out/ended',
    );
    await guest.until('grep -q "ok 3" /srv/out/state', 60);
    await guest.until('test -s /srv/out/sequence', 60);
    await guest.sh('echo +io > /sys/fs/cgroup/cgroup.subtree_control; mkdir /sys/fs/cgroup/slow');
    pids.appender = await guest.background(
      'echo $$ > /sys/fs/cgroup/slow/cgroup.procs; exec taskset -c 0 python3 /srv/appender.py /srv/out/appended',
    );
    await guest.until('test -e /srv/out/appended.ready', 60);
    await guest.sh(slowDown);
    const waits = `grep -q ext4_buffered_write_iter /proc/${pids.appender}/stack`;
    await guest.sh(`kill -USR1 ${pids.appender}`);
    await guest.until(waits, 60);
    const name = '/srv/sleep-slowly';
    const forget = 'import os, sys; os.posix_fadvise(os.open(sys.argv[1], 0), 0, 0, os.POSIX_FADV_DONTNEED)';
    await guest.sh(`cp /bin/sleep ${name}; sync; python3 -c '${forget}' ${name}`);
    pids.caller = await guest.background(`echo $$ > /sys/fs/cgroup/slow/cgroup.procs; exec ${name} 3600`);
    await guest.until(`grep -q execve /proc/${pids.caller}/stack`, 60);
    // Not before everybody is protected: that takes long where no CPU is free.
    const compute = 'until [ -e /srv/out/go ]; do sleep 0.2; done; while :; do :; done';
    pids.busy = [await guest.background(compute), await guest.background(compute)];
    const { segments, meetings, state, pipe, sleeper, appender, caller, pressure, busy } = pids;
    await guest.protect([segments, meetings, state, pipe, sleeper, appender, caller, pressure, ...busy]);
    // Not before everything else is there: a busy machine may take longer than the sleep.
    await guest.sh('touch /srv/out/go');
    await guest.until(`pgrep -P ${pids.sleeper} -f '^sleep 150$'`, 30);
    await guest.until(`! pgrep -P ${busy.join(',')}`, 30);
    // One that begins anew is to end noticeably later.
    await guest.until(
      'awk "NR == FNR { begun = \\$1; next } { exit \\$1 < begun + 30 }" /srv/out/begun /proc/uptime',
      120,
    );
    panicked = Number.parseFloat(await guest.sh('cat /proc/uptime'));
    report = await guest.panic('bug', 0);
  });
  after(() => guest?.down());

  test('processes that computed on a CPU go on computing', async () => {
    for (const pid of pids.busy) {
      assertRestored(report, pid);
      assert.match(await guest.sh(`ps -o stat= -p ${pid}`), /^R/);
    }
    // They would take the CPUs from everything that follows.
    await guest.kill(pids.busy);
  });

  test('a process with everything goes on with everything', async () => {
    assertRestored(report, pids.state);
    await guest.sh(': > /srv/out/state');
    await guest.until('test $(wc -l < /srv/out/state) -ge 3', 60);
    const lines = await guest.sh('cat /srv/out/state');
    assert.doesNotMatch(lines, /lost/);
    assert.match(lines, /^ok \d+$/m);
  });

  test('a trigger for pressure is set again, and who waits for it waits', async () => {
    assertRestored(report, pids.pressure);
    await guest.sh(`kill -USR1 ${pids.pressure}`);
    assert.equal(await guest.until('grep -v ready /srv/out/pressure', 60), 'EBUSY');
    await guest.untilState(pids.pressure, 'S');
  });

  test('processes come back under the highest numbers as under low ones', () => {
    assert.ok(pids.state < 100_000 && pids.pipe >= 4_190_000 && pids.sleeper >= 4_190_000);
    for (const pid of [pids.state, pids.pipe, pids.sleeper]) assertRestored(report, pid);
  });

  test('not a byte between the ends of a pipe is lost or doubled', async () => {
    assertRestored(report, pids.pipe);
    const seen = Number.parseInt(await guest.sh('cat /srv/out/sequence'), 10);
    await guest.until(`test "$(cut -d' ' -f1 /srv/out/sequence)" -gt ${seen + 600}`, 90);
    assert.match(await guest.sh('cat /srv/out/sequence'), /^\d+ *$/);
  });

  test('System V shared memory has its numbers, keys, owners and content, and is shared', async () => {
    assertRestored(report, pids.segments);
    assert.match(
      segmentsBefore,
      /^shared: key 4f570001, owner 1003:1004, maker 1001:1002, mode 640, 16484 /m,
    );
    assert.match(segmentsBefore, /^behind its size: 5a$/m);
    const { notes = [] } = report.processes.find(({ pid }) => pid === pids.segments) ?? {};
    assert.match(notes.join('\n'), /segment \d+ is attached and no longer locked \(mlock\)/);
    await guest.sh(`kill -HUP ${pids.segments}`);
    await guest.until('grep -q done /srv/out/segments', 60);
    assert.equal(await guest.sh('cat /srv/out/segments'), segmentsBefore);
  });

  test('System V semaphores, message queues and AIO contexts are what they were, and go on being used', async () => {
    assertRestored(report, pids.meetings);
    const { notes = [] } = report.processes.find(({ pid }) => pid === pids.meetings) ?? {};
    assert.match(notes.join('\n'), /semaphore set \d+ has the times of its restore/);
    assert.match(notes.join('\n'), /message queue \d+ no longer tells who sent and received last/);
    assert.match(meetingsBefore, /^semaphore 3: 0, by holder, 1 wait$/m);
    await guest.sh(`kill -HUP ${pids.meetings}`);
    await guest.until('grep -q done /srv/out/meetings', 60);
    assert.equal(await guest.sh('cat /srv/out/meetings; : > /srv/out/meetings'), meetingsBefore);
    await guest.sh(`kill -USR1 ${pids.meetings}`);
    await guest.until('grep -q "waiter has it" /srv/out/meetings && grep -q finished /srv/out/meetings', 60);
    const lines = await guest.until('grep received /srv/out/meetings && cat /srv/out/meetings', 60);
    assert.match(lines, /^context 0: 2 unread, then filled, all read$/m);
    assert.match(lines, /^context 1: 5 unread, then filled, all read$/m);
    assert.match(lines, /^event: 1, data 300, result 1$/m);
    assert.match(lines, /^received: 5 bytes, hello$/m);
    assert.match(lines, /^without holder: 3 3 32767 0$/m);
    const set = /^number: (\d+)$/m.exec(lines)?.[1] ?? assert.fail(lines);
    await guest.kill([pids.meetings]);
    const values = `ipcs -s -i ${set} | awk '$1 ~ /^[0-3]$/ { print $2 }' | tr '\\n' ' '`;
    await guest.until(`[ "$(${values})" = "5 0 32767 1 " ]`, 60);
  });

  test('a program that waited for the disk in the middle of an append appends every line once', async () => {
    assertRestored(report, pids.appender);
    await guest.until('test $(wc -l < /srv/out/appended) -ge 6', 60);
    const lines = (await guest.sh('cat /srv/out/appended')).split('\n');
    assert.deepEqual(
      lines,
      lines.map((_, i) => `line ${i + 1}`),
    );
    const appender = report.processes.find(({ pid }) => pid === pids.appender);
    assert.deepEqual(appender?.inDoubt, []);
  });

  test('a program that waited for the disk in execve becomes the one that it called', async () => {
    assertRestored(report, pids.caller);
    await guest.until(`[ "$(cat /proc/${pids.caller}/comm)" = sleep-slowly ]`, 60);
    assert.deepEqual(report.processes.find(({ pid }) => pid === pids.caller)?.inDoubt, []);
  });

  test('the clock that does not count sleep in a dead kernel goes on, and a sleep ends when it would have', async () => {
    assertRestored(report, pids.sleeper);
    await guest.until('test -s /srv/out/ended', 200);
    const [begun = 0, ended = 0] = (await guest.sh('cat /srv/out/begun /srv/out/ended'))
      .split('\n')
      .map((line) => Number.parseFloat(line));
    assert.ok(ended - begun > 149.9, `${ended - begun} s`);
    // One that had begun anew would end 150 s after the panic at the earliest.
    assert.ok(ended < panicked + 150, `begun ${begun}, panicked ${panicked}, ended ${ended}`);
  });
});
