import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import {
  ApartConnections,
  type ApartEnd,
  apartEndsOf,
  endLonely,
  type GroupState,
  groupStates,
  lonelyEnds,
  readApartEnds,
  writeApartEnds,
} from '../../../src/crash-world/sandbox/apart-connections.ts';
import { noFiles } from '../../../src/model/file.ts';
import type { IncidentReport } from '../../../src/report/schema.ts';
import { socketAt } from '../../criu/inet-sockets.ts';
import { groupOf, processOf } from '../../criu/processes.ts';
import { emptyReport } from '../../report/example.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-apart-'));
after(() => rmSync(directory, { recursive: true }));

/** Ports of which nobody of this machine has a connection. */
const end = (group: number, from: number, to: number): ApartEnd => ({
  ...{ group, pids: [group + 5], other: `PID ${to} (x)`, unconfirmed: 1 },
  own: { address: Uint8Array.of(127, 7, 7, 7), port: from },
  peer: { address: Uint8Array.of(127, 7, 7, 7), port: to },
});
const ends = [end(1, 1001, 1002), end(2, 1002, 1001), end(3, 1003, 1004)];

function reportOf(outcomes: Record<number, 'restored' | 'failed' | 'pending'>): IncidentReport {
  const processes = Object.entries(outcomes).map(([group, outcome]) => ({
    ...{ pid: Number(group) + 5, group: Number(group), comm: 'x', outcome, fate: 'whole' as const },
    ...{ reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] },
  }));
  return { ...emptyReport(), processes };
}

suite('ends of connections that come back at different times', () => {
  test('are those of the files of a group, with who has them', () => {
    const apart = { pid: 12, comm: 'cache' };
    const files = [
      { ...socketAt([127, 0, 0, 1]), id: 1, apart },
      { ...socketAt([127, 0, 0, 1]), id: 2 },
      { ...socketAt([...new Uint8Array(10), 255, 255, 127, 0, 0, 2]), id: 3, apart },
    ];
    const descriptors = files.map(({ id }) => ({ fd: id + 3, fileId: id, closeOnExec: false }));
    const [first, second] = [processOf(7), processOf(8)];
    const group = {
      ...groupOf([
        { ...first, filesId: 1 },
        { ...second, filesId: 2 },
      ]),
      files: { ...noFiles, files, tables: [{ filesId: 2, descriptors }] },
    };
    const found = apartEndsOf(group);
    assert.deepEqual(
      found.map(({ group: id, pids, own, other }) => [id, pids, [...own.address], own.port, other]),
      [
        [group.id, [8], [127, 0, 0, 1], 80, 'PID 12 (cache)'],
        [group.id, [8], [127, 0, 0, 2], 80, 'PID 12 (cache)'],
      ],
    );
    const path = join(directory, 'apart.json');
    const report = emptyReport();
    assert.deepEqual(readApartEnds(report, path), []);
    writeApartEnds(found, path);
    assert.deepEqual(readApartEnds(report, path), found);
    assert.deepEqual(report.errors, []);
    writeFileSync(path, '[{}]');
    assert.deepEqual(readApartEnds(report, path), []);
    assert.equal(report.errors.length, 1);
  });

  test('are alone if the other one does not come back, and wait while that is not decided', () => {
    const aloneIn = (one: GroupState, two: GroupState): number[] => {
      const states = new Map<number, GroupState>([
        [1, one],
        [2, two],
        [3, 'gone'],
      ]);
      return lonelyEnds(ends, (group) => states.get(group) ?? 'gone').map(({ group }) => group);
    };
    assert.deepEqual(aloneIn('here', 'here'), []);
    assert.deepEqual(aloneIn('here', 'later'), []);
    assert.deepEqual(aloneIn('later', 'gone'), []);
    assert.deepEqual(aloneIn('here', 'gone'), [1]);
    assert.deepEqual(aloneIn('gone', 'here'), [2]);
    // Its other end belongs to nobody who comes back.
    assert.deepEqual(
      lonelyEnds(ends, (group) => (group === 3 ? 'here' : 'gone')).map(({ why }) => why),
      ['its other end, that of PID 1004 (x), did not come back'],
    );
  });

  test('are alone if the other one was there and has gone', () => {
    const one = lonelyEnds(ends.slice(0, 2), () => 'here', { has: ({ own }) => own.port === 1001 });
    assert.deepEqual(
      one.map(({ group, why }) => [group, why]),
      [[1, 'its other end, that of PID 1002 (x), had ended before this one was back']],
    );
  });

  test('are noted with both if one has gone before the other one was back', async () => {
    const report = reportOf({ 1: 'restored', 2: 'restored' });
    const [one, two] = ends;
    assert.ok(one !== undefined && two !== undefined);
    await endLonely(
      lonelyEnds([one, two], () => 'here', { has: ({ own }) => own.port === 1001 }),
      report,
    );
    assert.deepEqual(
      report.processes.map(({ fate, losses }) => [fate, losses?.map(({ what }) => what)]),
      [
        [
          'with-losses',
          [
            'the connection to 127.7.7.7:1002 is reset: its other end, that of PID 1002 (x), had ended before ' +
              'this one was back',
          ],
        ],
        [
          'with-losses',
          [
            'the connection to 127.7.7.7:1001 had ended before its other end, that of PID 1001 (x), was back: ' +
              'it was closed, or its time was over',
          ],
        ],
      ],
    );
  });

  test('are left alone, and nothing is noted, if both are there after all', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    assert.ok(typeof address === 'object' && address !== null);
    const client = connect(address.port, '127.0.0.1');
    const [[accepted]] = await Promise.all([once(server, 'connection'), once(client, 'connect')]);
    try {
      const local = Uint8Array.of(127, 0, 0, 1);
      const own = { address: local, port: client.localPort ?? 0 };
      const peer = { address: local, port: address.port };
      const both: ApartEnd[] = [
        { group: 1, pids: [6], other: 'PID 7 (x)', own, peer, unconfirmed: 1 },
        { group: 2, pids: [7], other: 'PID 6 (x)', own: peer, peer: own, unconfirmed: 1 },
      ];
      const report = reportOf({ 1: 'restored', 2: 'restored' });
      // As if the list had lacked the second one.
      const lonely = lonelyEnds(both, () => 'here', { has: (one) => one.own.port === own.port });
      assert.equal(lonely.length, 1);
      await endLonely(lonely, report);
      assert.deepEqual(
        report.processes.map(({ losses, notes }) => [losses, notes]),
        [
          [undefined, []],
          [undefined, []],
        ],
      );
      assert.deepEqual(report.errors, []);
      client.write('x');
      const [data] = await once(accepted, 'data');
      assert.equal(String(data), 'x');
    } finally {
      client.destroy();
      accepted.destroy();
      server.close();
    }
  });

  test('are found in one pass, however many there are', async () => {
    const many = Array.from({ length: 1000 }, (_, i) => [
      end(1, 10_000 + i, 30_000 + i),
      end(2, 30_000 + i, 10_000 + i),
    ]).flat();
    // A look at the address of one is counted, whoever looks: some for each, and not some for each pair.
    let looks = 0;
    const counted = many.map((one) => ({
      ...one,
      get own() {
        looks++;
        return one.own;
      },
    }));
    assert.deepEqual(
      lonelyEnds(counted, () => 'here'),
      [],
    );
    assert.ok(looks <= 10 * many.length, `${looks} looks`);
    looks = 0;
    await new ApartConnections(
      counted,
      reportOf({ 1: 'restored', 2: 'pending' }),
      join(directory, 'many.json'),
    ).beforeRunning(new Set([2]));
    assert.ok(looks <= 20 * many.length, `${looks} looks`);
  });

  test('have what their processes lose in the report, once', async () => {
    const report = reportOf({ 1: 'restored', 2: 'failed', 3: 'pending' });
    for (let i = 0; i < 2; i++) await endLonely(lonelyEnds(ends, groupStates(report)), report);
    const what =
      'the connection to 127.7.7.7:1002 is reset: its other end, that of PID 1002 (x), did not come back';
    assert.deepEqual(
      report.processes.map(({ fate, losses }) => [fate, losses]),
      [
        ['with-losses', [{ kind: 'connections', what }]],
        ['whole', undefined],
        ['whole', undefined],
      ],
    );
    assert.deepEqual(report.errors, []);
  });
});
