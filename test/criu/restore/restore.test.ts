import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ImageDirectory } from '../../../src/criu/images/image.ts';
import { RESTORE_PLAN } from '../../../src/criu/images/plan/restore-plan.ts';
import { writeRestorePlan } from '../../../src/criu/images/plan/write-plan.ts';
import { writeSegments } from '../../../src/criu/images/segments.ts';
import {
  type HeldGroup,
  holdImages,
  type RestoreFailure,
  type RestoreOptions,
} from '../../../src/criu/restore/restore.ts';
import { moveTo, RestoreCgroup } from '../../../src/criu/restore/restore-cgroup.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import type { SharedSegment } from '../../../src/model/segment.ts';
import { groupOf, processOf } from '../processes.ts';
import { cgroups, findAction, findOwn, needsCgroups } from './cgroups.ts';

/** Whether a process is there and no zombie. */
function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
}

/** Images of one process, which is there already and stopped; it writes a file as soon as it runs. */
class Subject {
  readonly directory = mkdtempSync(join(tmpdir(), 'otherworld-restore-'));
  readonly ran = join(this.directory, 'ran');
  readonly #process = spawn('sh', ['-c', `kill -STOP $$; echo >${this.ran}; exec sleep 1000`]);
  readonly pid = this.#process.pid ?? 0;

  constructor(name = 'criu') {
    writeRestorePlan(this.directory, groupOf([processOf(this.pid)]));
    this.command = [join(this.directory, name)];
  }

  readonly command: readonly string[];

  /** A `criu` that does as this script says. */
  criu(script: string): void {
    const head = [findOwn, findAction, `subject=${this.pid}`].join('\n');
    writeFileSync(this.command[0] ?? '', `#!/bin/sh\n${head}\n${script}\n`, { mode: 0o755 });
  }

  hold(options: Partial<RestoreOptions> = {}): Promise<HeldGroup | RestoreFailure> {
    return holdImages(this.directory, { command: this.command, cgroups, timeoutSeconds: 20, ...options });
  }

  /** Numbers that the script has written. */
  numbers(name: string): number[] {
    return (readFileSync(join(this.directory, name), 'latin1').match(/\d+/g) ?? []).map(Number);
  }

  remove(): void {
    this.#process.kill('SIGKILL');
    rmSync(this.directory, { recursive: true });
  }
}

/** Restores the subject: takes it in, asks, and lets it go on; ends when it has run, or is frozen. */
const good = `echo $subject >$own/cgroup.procs
action post-restore
action pre-resume
kill -CONT $subject
until [ -e "$images/ran" ] || grep -q 'frozen 1' $own/cgroup.events; do sleep 0.01; done`;

/** A helper in a session of its own, whose parent has ended, and a process that the restore has made. */
const helpers = `(setsid sleep 1000 & echo $! >>"$images/left")
sleep 1000 & echo $! >>"$images/left"`;

describe('a restore', needsCgroups, () => {
  const subjects: Subject[] = [];
  const subject = (script: string): Subject => {
    const one = new Subject();
    one.criu(script);
    subjects.push(one);
    return one;
  };
  afterEach(() => {
    for (const one of subjects.splice(0)) one.remove();
  });
  const reasonOf = ({ restored, ...rest }: HeldGroup | RestoreFailure): string =>
    restored === false && 'reason' in rest ? rest.reason : 'none';

  it('whose images the disk did not take is ended before it runs', async () => {
    const one = subject(good);
    const lost = join(one.directory, 'pages-1.img');
    writeFileSync(lost, 'x');
    const failed = await one.hold({
      waitForWriteBack: (path) => {
        if (path === lost) throw new Error('EIO');
      },
    });
    assert.match(reasonOf(failed), /^the disk did not take all of .*pages-1\.img, .*: EIO$/);
    assert.ok(!existsSync(one.ran));
  });

  it('runs in a mount namespace that shows neither its images nor its programs', async () => {
    const one = subject(
      `readlink /proc/self/ns/mnt >"$images/namespace"\nls ${tmpdir()} >"$images/seen"\n${good}`,
    );
    const cover = `mount -t tmpfs none ${tmpdir()} && echo ready && exec sleep 1000`;
    const placeholder = spawn('unshare', ['--mount', 'sh', '-c', cover], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    try {
      await once(placeholder.stdout, 'data');
      const pid = placeholder.pid ?? 0;
      const before = readlinkSync('/proc/thread-self/ns/mnt');
      const group = await one.hold({ inside: { pid, programs: one.directory, remade: new Set() } });
      assert.equal(group.restored, 'held', reasonOf(group));
      const found = (name: string): string => readFileSync(join(one.directory, name), 'latin1').trim();
      assert.equal(found('namespace'), readlinkSync(`/proc/${pid}/ns/mnt`));
      assert.equal(found('seen'), '');
      assert.equal(readlinkSync('/proc/thread-self/ns/mnt'), before);
      if (group.restored === 'held') await group.end();
    } finally {
      placeholder.kill('SIGKILL');
    }
  });

  it('ends a process whose lost connection cannot be reset: it would wait for a peer that knows nothing of it', async () => {
    const one = subject(good);
    const path = join(one.directory, RESTORE_PLAN);
    const plan: unknown = JSON.parse(readFileSync(path, 'utf8'));
    const brokenConnections = [{ pid: one.pid, fd: 900, as: 'connected' }];
    writeFileSync(path, JSON.stringify({ ...Object(plan), brokenConnections }));
    assert.match(
      reasonOf(await one.hold()),
      /^the connection of fd 900 of process \d+, which is lost, cannot be reset: pidfd_getfd.*EBADF/,
    );
    assert.ok(!isAlive(one.pid) && !existsSync(one.ran));
  });

  it('ends a process whose trigger for pressure cannot be set: a poll of it would return at once', async () => {
    const one = subject(good);
    const path = join(one.directory, RESTORE_PLAN);
    const plan: unknown = JSON.parse(readFileSync(path, 'utf8'));
    const pressureTriggers = [{ pid: one.pid, fd: 900, text: 'some 150000 1000000' }];
    writeFileSync(path, JSON.stringify({ ...Object(plan), pressureTriggers }));
    assert.match(
      reasonOf(await one.hold()),
      /^the trigger for pressure of fd 900 of process \d+ cannot be set: pidfd_getfd.*EBADF/,
    );
    assert.ok(!isAlive(one.pid) && !existsSync(one.ran));
  });

  it('holds its processes until they are released, into the cgroup where they belong', async () => {
    const one = subject(good);
    const group = await one.hold();
    assert.equal(group.restored, 'held', reasonOf(group));
    assert.ok(group.restored === 'held');
    assert.ok(!existsSync(one.ran));
    const place = `/otherworld-test-${process.pid}`;
    const { pids, notes } = group.release(place);
    assert.deepEqual([pids, notes], [[one.pid], []]);
    assert.match(readFileSync(`/proc/${one.pid}/cgroup`, 'latin1'), new RegExp(`^0::${place}$`, 'm'));
    while (!existsSync(one.ran)) await sleep(5);
    moveTo(one.pid, '/', cgroups);
    rmdirSync(join(cgroups ?? '', place));
    // Other tests may be restoring at the same time.
    const parent = join(cgroups ?? '', 'otherworld-restore');
    const left = existsSync(parent) ? readdirSync(parent) : [];
    assert.deepEqual(
      left.filter((name) => name.startsWith(`${process.pid}-`)),
      [],
    );
  });

  it('that fails gives the first error as its reason', async () => {
    const log =
      '(00.1) 7: Error (criu/x.c:1): Can not open usr/x\\n(00.2) Error (criu/x.c:2): Restoring FAILED.\\n';
    const group = await subject(`printf '${log}' > "$images/restore.log"; exit 1`).hold();
    assert.equal(reasonOf(group), 'criu: Can not open usr/x');
  });

  it('that does not end is ended, with whatever it has started', async () => {
    const one = subject(`echo $subject >$own/cgroup.procs; ${helpers}; exec sleep 1000`);
    assert.equal(reasonOf(await one.hold({ timeoutSeconds: 1 })), 'it did not end within 1 s');
    const left = [one.pid, ...one.numbers('left')];
    assert.equal(left.length, 3);
    assert.deepEqual(left.filter(isAlive), []);
  });

  it('that does not end has no more time than others leave it', async () => {
    const one = subject('exec sleep 1000');
    const group = await one.hold({ most: { seconds: 1, why: 'half of an hour' } });
    assert.equal(reasonOf(group), 'it did not end within 1 s, half of an hour');
  });

  it('that fails leaves nothing', async () => {
    const one = subject(`echo $subject >$own/cgroup.procs; ${helpers}; exit 1`);
    assert.equal(reasonOf(await one.hold()), 'criu ended with status 1 and said nothing');
    assert.deepEqual([one.pid, ...one.numbers('left')].filter(isAlive), []);
  });

  it('that leaves more than the group is no restore', async () => {
    const one = subject(`${helpers}; ${good}`);
    assert.match(reasonOf(await one.hold()), /criu has left process \d+, which is none of the group/);
    assert.ok(!existsSync(one.ran));
    assert.deepEqual([one.pid, ...one.numbers('left')].filter(isAlive), []);
  });

  it('without one of its processes is none', async () => {
    const group = await subject('action pre-resume').hold();
    assert.match(reasonOf(group), /^process \d+ ended before it ran again$/);
  });

  it('that does not stop before its processes run is ended', async () => {
    const one = subject('echo $subject >$own/cgroup.procs');
    assert.match(reasonOf(await one.hold()), /without having stopped before its processes run/);
    assert.ok(!isAlive(one.pid));
  });

  it('is ended if its processes are not what they were, or nobody can tell', async () => {
    const one = subject(good);
    const group = await one.hold({ examine: () => ['has another file open'] });
    assert.equal(reasonOf(group), 'has another file open');
    const other = subject(good);
    const unclear = await other.hold({
      examine: () => {
        throw new Error('cannot be looked at');
      },
    });
    assert.equal(reasonOf(unclear), 'cannot be looked at');
    for (const { pid, ran } of [one, other]) assert.ok(!isAlive(pid) && !existsSync(ran));
  });

  it('lets its processes run in the cgroup of each, or ends them where that is not possible', async () => {
    const one = subject(good);
    const group = await one.hold();
    assert.ok(group.restored === 'held');
    await group.orphan();
    const place = `/otherworld-test-own-${process.pid}`;
    const { pids, notes } = group.releaseInto((pid) => (pid === one.pid ? `${place}/below` : '/'));
    assert.deepEqual([pids, notes], [[one.pid], []]);
    assert.match(readFileSync(`/proc/${one.pid}/cgroup`, 'latin1'), new RegExp(`^0::${place}/below$`, 'm'));
    while (!existsSync(one.ran)) await sleep(5);
    moveTo(one.pid, '/', cgroups);
    for (const path of [`${place}/below`, place]) rmdirSync(join(cgroups ?? '', path));
    const other = subject(good);
    const held = await other.hold();
    assert.ok(held.restored === 'held');
    const nowhere = () => held.releaseInto(() => '/cgroup.procs/below');
    assert.throws(
      nowhere,
      new RegExp(`^Error: process ${other.pid} cannot be moved to /cgroup.procs/below: `),
    );
    assert.ok(!existsSync(other.ran));
    await held.end();
    assert.ok(!isAlive(other.pid) && !existsSync(other.ran));
  });

  it('ends the parent that its processes were made with while they are held', async () => {
    const parent = spawn('sh', ['-c', 'kill -STOP $$; exit 0']);
    const isStopped = `until grep -q '^State:.T' /proc/${parent.pid}/status; do sleep 0.01; done`;
    const takesIn = `${isStopped}\necho ${parent.pid} >$own/cgroup.procs\n${good}`;
    const one = subject(takesIn.replace('kill -CONT', `kill -CONT ${parent.pid}`));
    const pid = parent.pid ?? 0;
    // Instead of the one without a parent.
    rmSync(join(one.directory, RESTORE_PLAN));
    writeRestorePlan(one.directory, groupOf([processOf(one.pid)]), [processOf(pid), processOf(one.pid)]);
    const group = await one.hold();
    assert.equal(group.restored, 'held', reasonOf(group));
    assert.ok(group.restored === 'held' && isAlive(pid));
    await group.orphan();
    assert.ok(!isAlive(pid) && isAlive(one.pid) && !existsSync(one.ran));
    assert.deepEqual(group.releaseInto(() => '/').pids, [one.pid]);
  });

  it('goes on, and says so, where its cgroup cannot be made or removed', async () => {
    const one = subject(good);
    const group = await one.hold();
    assert.ok(group.restored === 'held');
    const { pids, notes } = group.release('/cgroup.procs/below');
    assert.deepEqual(pids, [one.pid]);
    assert.match(notes[0] ?? '', new RegExp(`^process ${one.pid} is not in cgroup /cgroup.procs/below: `));
    assert.equal(notes.length, 1);
    assert.match(readFileSync(`/proc/${one.pid}/cgroup`, 'latin1'), /^0::\/$/m);
    while (!existsSync(one.ran)) await sleep(5);
    const cgroup = new RestoreCgroup(cgroups);
    cgroup.takeOut(one.pid);
    assert.match(cgroup.release()[0] ?? '', /^the cgroup .* cannot be removed: EBUSY/);
    await cgroup.end();
  });

  it('that was held can be ended', async () => {
    const one = subject(good);
    const group = await one.hold();
    assert.ok(group.restored === 'held');
    await group.end();
    assert.ok(!isAlive(one.pid) && !existsSync(one.ran));
  });

  it('makes the shared memory of its group, and takes it away if the group does not come back', async () => {
    const has = (id: number): boolean =>
      new RegExp(`^ *\\d+ +${id} `, 'm').test(readFileSync('/proc/sysvipc/shm', 'latin1'));
    const id = 32768 * (40_000 + (process.pid % 10_000)) + 29_000 + (process.pid % 900);
    const segment: SharedSegment = {
      ...{ id, key: 0, uid: 0, gid: 0, cuid: 0, cgid: 0, mode: 0o600, sizeBytes: 4096 },
      ...{ isRemoved: false, isLocked: false, isNotReserved: false },
      ...{ attachments: 0, runs: listedRuns([]) },
    };
    const write = ({ directory }: Subject, over: Partial<SharedSegment> = {}): void =>
      writeSegments({ segments: [{ ...segment, ...over }] }, new ImageDirectory(directory), {
        writeRuns: () => 0,
      });
    const one = subject(good);
    write(one);
    const group = await one.hold();
    assert.ok(group.restored === 'held', reasonOf(group));
    assert.ok(has(id));
    const other = subject(good);
    write(other);
    assert.equal(
      reasonOf(await other.hold()),
      `the System V shared memory segment ${id} cannot be made again: its number is taken`,
    );
    await group.end();
    assert.ok(!has(id));
    const detached = subject(good);
    write(detached, { attachments: 1 });
    assert.match(reasonOf(await detached.hold()), /has 0 attachments, and had 1$/);
    assert.ok(!has(id) && !isAlive(detached.pid) && !existsSync(detached.ran));
  });

  it('is not tried if somebody has a number that it needs', async () => {
    const one = subject(good);
    const asked: number[] = [];
    const taken = (numbers: readonly number[]) => {
      asked.push(...numbers);
      return ['the number is taken'];
    };
    assert.equal(reasonOf(await one.hold({ taken })), 'the number is taken');
    assert.deepEqual(asked, [one.pid]);
    assert.ok(isAlive(one.pid));
  });

  it('without criu says so', async () => {
    const group = await subject('').hold({ command: ['/nonexistent/criu'] });
    assert.match(reasonOf(group), /ENOENT/);
  });
});

describe('a restore without a cgroup file system', () => {
  it('is none', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'otherworld-restore-'));
    writeRestorePlan(directory, groupOf([processOf(process.pid)]));
    await assert.rejects(holdImages(directory, { cgroups: directory }), /is no cgroup v2 file system/);
    rmSync(directory, { recursive: true });
  });
});
