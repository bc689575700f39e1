import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import type { SignalsPlan } from '../../../src/criu/images/plan/restore-plan.ts';
import type { Freezer } from '../../../src/criu/restore/held-process.ts';
import { restoreSignals } from '../../../src/criu/restore/held-signals.ts';
import { cgroups, needsCgroups } from './cgroups.ts';

const [SIGTRAP, SIGSTOP, SIGTSTP] = [5, 19, 20];
const [SI_USER, SI_TKILL] = [0, -6];

const subjectSchema = z.object({
  pid: z.int(),
  tid: z.int(),
  known: z.int(),
  unknown: z.int(),
  handler: z.string(),
});

/** Two cgroups, of which one is frozen. */
class TestFreezer implements Freezer {
  readonly held: string;
  readonly free: string;
  constructor(name = 'signals') {
    this.held = join(cgroups ?? '', `otherworld-test-${name}-frozen-${process.pid}`);
    this.free = join(cgroups ?? '', `otherworld-test-${name}-free-${process.pid}`);
    for (const path of [this.held, this.free]) mkdirSync(path, { recursive: true });
    writeFileSync(join(this.held, 'cgroup.freeze'), '1');
  }
  takeOut(pid: number): void {
    writeFileSync(join(this.free, 'cgroup.procs'), String(pid));
  }
  putBack(pid: number): void {
    writeFileSync(join(this.held, 'cgroup.procs'), String(pid));
  }
  async frozen(): Promise<void> {
    while (!readFileSync(join(this.held, 'cgroup.events'), 'latin1').includes('frozen 1')) await sleep(2);
  }
  thaw(): void {
    writeFileSync(join(this.held, 'cgroup.freeze'), '0');
  }
  async end(): Promise<void> {
    for (const path of [this.held, this.free]) {
      writeFileSync(join(path, 'cgroup.kill'), '1');
      while (!readFileSync(join(path, 'cgroup.events'), 'latin1').includes('populated 0')) await sleep(2);
      rmdirSync(path);
    }
  }
}

/** siginfo_t of a SIGTRAP that a process has sent to itself. */
function trap(code: number, pid: number): string {
  const info = Buffer.alloc(128);
  info.writeInt32LE(SIGTRAP, 0);
  info.writeInt32LE(code, 8);
  info.writeInt32LE(pid, 16);
  return info.toString('base64');
}

function planOf(pid: number, over: Partial<SignalsPlan>): SignalsPlan {
  return { pid, traps: [], stoppedChildren: [], keepsChildSignal: false, ...over };
}

describe('signals of processes that are held', () => {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-held-'));
  const program = join(directory, 'subject');
  let freezer: TestFreezer | undefined;

  before(() => {
    const source = join(import.meta.dirname, 'held-subject.c');
    execFileSync('gcc', ['-O1', '-Wall', '-Wextra', '-Werror', '-pthread', '-o', program, source]);
  });
  after(async () => {
    await freezer?.end();
    rmSync(directory, { recursive: true });
  });

  it(
    'are what they were: a stop is no news to who knew of it, SIGTRAP has its sender and its handler',
    needsCgroups,
    async () => {
      const child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
      const { stdin, stdout } = child;
      assert.ok(stdin !== null && stdout !== null);
      const lines = createInterface(stdout)[Symbol.asyncIterator]();
      const next = async (): Promise<unknown> => JSON.parse((await lines.next()).value ?? '');
      const { pid, tid, known, unknown, handler } = subjectSchema.parse(await next());
      freezer = new TestFreezer();
      for (const one of [known, unknown, pid]) freezer.putBack(one);
      await freezer.frozen();
      // As CRIU does: they stop when they run.
      for (const one of [known, unknown]) process.kill(one, 'SIGSTOP');
      const stoppedChildren = [
        { pid: known, isKnown: true },
        { pid: unknown, isKnown: false },
      ];
      const traps = [{ siginfo: trap(SI_USER, pid) }, { tid, siginfo: trap(SI_TKILL, pid) }];
      const trapAction = { handler, flags: '0x0', restorer: '0x0', mask: '0x0' };
      const plans = [
        planOf(unknown, { stopSignal: SIGTSTP }),
        planOf(known, { stopSignal: SIGSTOP }),
        planOf(pid, { stoppedChildren, traps, trapAction }),
      ];
      assert.deepEqual(await restoreSignals(plans, freezer), []);
      freezer.thaw();
      assert.match(readFileSync(`/proc/${known}/status`, 'latin1'), /^State:\tT \(stopped\)$/m);
      stdin.write('report\n');
      assert.deepEqual(await next(), {
        ...{ news: 0, known: 0, unknown: SIGTSTP },
        ...{ traps: [SI_USER, -100], ofThread: SI_TKILL, handler: 1 },
      });
    },
  );

  it('cannot be told where a process is not held any more', needsCgroups, async () => {
    const { pid = 0 } = spawn('sleep', ['1000'], { stdio: 'ignore' });
    const own = new TestFreezer('lost');
    own.putBack(pid);
    await own.frozen();
    const before = readFileSync(`/proc/${pid}/status`, 'latin1').match(/^SigBlk:.*$/m)?.[0];
    const lost: Freezer = {
      takeOut: (one) => own.takeOut(one),
      putBack: () => {
        throw new Error('no way back');
      },
      frozen: () => own.frozen(),
    };
    const plan = [planOf(pid, { stoppedChildren: [{ pid: 1, isKnown: false }] })];
    await assert.rejects(restoreSignals(plan, lost), /of process \d+ cannot be made .*: no way back$/);
    const after = readFileSync(`/proc/${pid}/status`, 'latin1');
    assert.match(after, /^TracerPid:\t0$/m);
    assert.equal(after.match(/^SigBlk:.*$/m)?.[0], before);
    await own.end();
  });
});
