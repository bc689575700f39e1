import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { connectionOptions } from '../../../../src/criu/images/files/tcp-stream.ts';
import { connectionsOf } from '../../../../src/criu/images/plan/connections.ts';
import { RESTORE_PLAN } from '../../../../src/criu/images/plan/restore-plan.ts';
import { writeRestorePlan } from '../../../../src/criu/images/plan/write-plan.ts';
import { readRestorePlan } from '../../../../src/criu/restore/read-plan.ts';
import type { InetSocket } from '../../../../src/model/socket.ts';
import { socketAt } from '../../inet-sockets.ts';
import { groupOf, processOf } from '../../processes.ts';

const mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
const six = [0x20, 1, 0xd, 0xb8, ...new Array(11).fill(0), 1];

/** A group of one process, in which each file has its place as its descriptor. */
function groupWith(files: readonly InetSocket[]): Parameters<typeof connectionsOf>[0] {
  const numbered = files.map((file, i) => ({ ...file, id: i + 1 }));
  const descriptors = numbered.map(({ id }) => ({ fd: id + 2, fileId: id, closeOnExec: false }));
  const processes = [{ pid: 500, filesId: 1 }];
  return { files: { files: numbered, tables: [{ filesId: 1, descriptors }] }, processes };
}

test('connections need their own addresses, each once, but not those of the loopback', () => {
  const files = [
    socketAt([10, 0, 2, 15]),
    socketAt([...mapped, 10, 0, 2, 15]),
    socketAt([127, 0, 0, 1]),
    socketAt([...mapped, 127, 0, 0, 1]),
    socketAt([...new Array(15).fill(0), 1]),
    socketAt(six),
    socketAt([10, 0, 2, 16], false),
  ];
  assert.deepEqual(connectionsOf(groupWith(files)), {
    count: 6,
    addresses: ['10.0.2.15', '2001:0db8:0000:0000:0000:0000:0000:0001'],
    connects: [],
  });
  assert.deepEqual(connectionOptions({ files }), ['--tcp-established']);
});

test('a connection that is lost is made, and is in the plan with the descriptor by which it is reset', () => {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-connections-'));
  try {
    const lost: InetSocket = { ...socketAt([10, 0, 2, 15]), broken: 'connecting' };
    const kept: InetSocket = { ...socketAt([10, 0, 2, 16]), id: 2 };
    const unmade: InetSocket = { ...socketAt([0, 0, 0, 0], false), id: 3, broken: 'connected' };
    const group = groupOf([processOf(7)]);
    const descriptors = [lost, kept, unmade].map(({ id }) => ({
      fd: 40 + id,
      fileId: id,
      closeOnExec: false,
    }));
    const files = { ...group.files, files: [lost, kept, unmade], tables: [{ filesId: 7, descriptors }] };
    writeRestorePlan(directory, { ...group, files });
    const { brokenConnections, connections } = readRestorePlan(directory);
    assert.deepEqual(brokenConnections, [
      { pid: 7, fd: 41, as: 'connecting' },
      { pid: 7, fd: 43, as: 'connected', unmade: 2 },
    ]);
    assert.equal(connections?.count, 2);
    const without = { ...files, tables: [] };
    rmSync(join(directory, RESTORE_PLAN));
    assert.throws(() => writeRestorePlan(directory, { ...group, files: without }), /has no descriptor/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a group without connections needs nothing for them', () => {
  const files = [socketAt([10, 0, 2, 16], false)];
  assert.equal(connectionsOf(groupWith(files)), undefined);
  assert.deepEqual(connectionOptions({ files }), []);
});

test('a connection that is begun anew names its socket, its peer and the own address that the peer is to see', () => {
  const to = (connecting: InetSocket['connecting'], family: 2 | 10): InetSocket => ({
    ...socketAt(new Array(family === 2 ? 4 : 16).fill(0), false),
    ...{ flags: 0o4002, connecting },
  });
  const bytes = (...given: readonly number[]): Uint8Array => Uint8Array.from(given);
  const outside = { source: bytes(10, 0, 2, 15), address: bytes(192, 0, 2, 9), port: 5432 };
  const sixth = { source: bytes(...mapped, 10, 0, 2, 15), address: bytes(...mapped, 192, 0, 2, 9), port: 80 };
  const within = { source: bytes(127, 0, 0, 1), address: bytes(127, 0, 0, 1), port: 1 };
  const route = { to: '192.0.2.9', from: '10.0.2.15' };
  const common = { pid: 500, flags: 0o4002 };
  assert.deepEqual(connectionsOf(groupWith([to(outside, 2), to(sixth, 10), to(within, 2)])), {
    count: 0,
    addresses: ['10.0.2.15'],
    connects: [
      { ...common, fd: 3, family: 2, address: 'c0000209', port: 5432, route },
      { ...common, fd: 4, family: 10, address: '00000000000000000000ffffc0000209', port: 80, route },
      { ...common, fd: 5, family: 2, address: '7f000001', port: 1 },
    ],
  });
  const lost = groupWith([to(outside, 2)]);
  assert.throws(() => connectionsOf({ ...lost, processes: [] }), /nobody has a socket/);
});
