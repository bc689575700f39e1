// What becomes of ends that are alone, as the kernel has it: in a network namespace of its own, for which the
// file runs itself once more.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import {
  ApartConnections,
  type ApartEnd,
  readApartEnds,
} from '../../../src/crash-world/sandbox/apart-connections.ts';
import type { IncidentReport } from '../../../src/report/schema.ts';
import { TcpEndsNow } from '../../../src/system/tcp-ask.ts';
import { leaveUnanswered, type TcpEnds } from '../../../src/system/unanswered.ts';
import { emptyReport } from '../../report/example.ts';
import { beginEnds, isInside, reverse, runInside } from '../../system/two-ends.ts';

const isRoot = process.getuid?.() === 0;
const RETRIES = '/proc/sys/net/ipv4/tcp_retries2';
const directory = mkdtempSync(join(tmpdir(), 'otherworld-apart-'));
after(() => rmSync(directory, { recursive: true }));

test('ends that are alone', { skip: isInside || (isRoot ? false : 'only root may do this') }, () => {
  runInside(import.meta.filename);
});

/** The process of a group has 5 more than that. */
function apart(group: number, ends: TcpEnds, unconfirmed = 0): ApartEnd {
  return { ...ends, group, pids: [group + 5], other: 'PID 1 (x)', unconfirmed };
}

function reportOf(outcomes: Record<number, 'restored' | 'failed' | 'pending'>): IncidentReport {
  const processes = Object.entries(outcomes).map(([group, outcome]) => ({
    ...{ pid: Number(group) + 5, group: Number(group), comm: 'x', outcome, fate: 'whole' as const },
    ...{ reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] },
  }));
  return { ...emptyReport(), processes };
}

const lossesOf = (report: IncidentReport): (string | undefined)[] =>
  report.processes.map(({ losses }) => losses?.map(({ what }) => what.replace(/^.*:\d+ /, '')).join());

suite('ends of connections, of which one comes late', { skip: !isInside }, () => {
  for (const address of ['127.0.0.1', '::1'] as const) {
    /** The first end has sent a request in vain, several times, when the second one is made. */
    const late = async (seconds = 2) => {
      const { ends, tuple } = await beginEnds(address);
      const kept = leaveUnanswered([tuple]);
      await ends.say('vanish');
      const first = apart(1, reverse(tuple), Number(await ends.say('number')));
      await ends.say('send');
      for (let i = 0; i < 2 * seconds; i++) assert.equal(await ends.say('hear'), 'nothing');
      assert.equal(new TcpEndsNow().isUnanswered(first), true);
      const report = reportOf({ 1: 'restored', 2: 'pending' });
      const path = join(directory, 'apart.json');
      const all = new ApartConnections([first, apart(2, tuple)], report, path);
      return { ends, first, kept, all, report, path };
    };

    test(`have what was sent answered before the second one runs (${address})`, async () => {
      const { ends, first, kept, all, report } = await late();
      try {
        assert.equal(await ends.say('again'), 'again');
        await all.beforeRunning(new Set([2]));
        assert.equal(new TcpEndsNow().isUnanswered(first), false);
        assert.deepEqual([lossesOf(report), report.errors], [[undefined, undefined], []]);
        assert.equal(await ends.say('reply'), "b'request'");
      } finally {
        for (const fd of kept) closeSync(fd);
        await ends.end();
      }
    });

    test(`end with a reset if the first one has sent for the last time (${address})`, async () => {
      const { ends, first, kept, all, report, path } = await late(7);
      try {
        // The first one gives up, and says nothing, when it would send again: in five seconds.
        writeFileSync(RETRIES, '1');
        assert.equal(await ends.say('again'), 'again');
        assert.equal(new TcpEndsNow().has(first), true);
        await all.beforeRunning(new Set([2]));
        assert.equal(await ends.say('reply'), 'reset');
        assert.deepEqual(lossesOf(report), [
          'had ended before its other end, that of PID 1 (x), was back: it was closed, or its time was over',
          'is reset: its other end, that of PID 1 (x), had ended before this one was back',
        ]);
        assert.deepEqual(
          readApartEnds(report, path).map(({ state }) => state),
          ['ended', 'ended'],
        );
        assert.deepEqual(report.errors, []);
      } finally {
        writeFileSync(RETRIES, '15');
        for (const fd of kept) closeSync(fd);
        await ends.end();
      }
    });

    test(`are looked at again, and named, while the first one is not answered (${address})`, async () => {
      const { ends, kept, all, report } = await late();
      try {
        // The second one is not there, whatever is said of it.
        const [, two] = report.processes;
        await all.beforeRunning(new Set([2]));
        assert.ok(two !== undefined);
        two.outcome = 'restored';
        assert.deepEqual([lossesOf(report), report.errors], [[undefined, undefined], []]);
        await all.concluded();
        assert.equal(report.errors.length, 1);
        assert.match(report.errors[0] ?? '', /of PID 6 has not been answered by PID 1 \(x\), which is back/);
        assert.equal(await ends.say('again'), 'again');
        report.errors.length = 0;
        await all.concluded();
        assert.deepEqual([lossesOf(report), report.errors], [[undefined, undefined], []]);
        assert.equal(await ends.say('reply'), "b'request'");
      } finally {
        for (const fd of kept) closeSync(fd);
        await ends.end();
      }
    });
  }

  test('are each told by itself, once, and one that cannot be told is named for what it is', async () => {
    const [six, four] = [await beginEnds('::1'), await beginEnds('127.0.0.1')];
    execFileSync('ip', ['address', 'delete', '::1/128', 'dev', 'lo']);
    try {
      for (const { ends } of [six, four]) await ends.say('vanish');
      const report = reportOf({ 1: 'restored', 2: 'restored', 3: 'failed' });
      const all = new ApartConnections(
        [
          apart(1, reverse(six.tuple)),
          apart(2, reverse(four.tuple)),
          apart(3, six.tuple),
          apart(3, four.tuple),
        ],
        report,
        join(directory, 'told.json'),
      );
      for (let i = 0; i < 3; i++) await all.decided();
      assert.equal(await four.ends.say('hear'), 'reset');
      assert.equal(await six.ends.say('hear'), 'nothing');
      const why = 'its other end, that of PID 1 (x), did not come back';
      assert.deepEqual(lossesOf(report), [
        `waits for nobody, and its process is not told: ${why}`,
        `is reset: ${why}`,
        undefined,
      ]);
      assert.equal(report.errors.length, 1);
      assert.match(report.errors[0] ?? '', /of PID 6 cannot be reset: .*EADDRNOTAVAIL/);
      await all.concluded();
      assert.equal(report.errors.length, 1);
    } finally {
      execFileSync('ip', ['address', 'add', '::1/128', 'dev', 'lo']);
      for (const { ends } of [six, four]) await ends.end();
    }
  });
});
