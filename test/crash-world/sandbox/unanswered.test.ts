import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { SANDBOX_MINUTES } from '../../../src/config/restore-time.ts';
import {
  answerAll,
  answerConnections,
  answeredProblem,
  holdConnections,
  isHeld,
  keptOf,
} from '../../../src/crash-world/sandbox/unanswered.ts';
import { noFiles } from '../../../src/model/file.ts';
import type { InetSocket } from '../../../src/model/socket.ts';
import { socketAt } from '../../criu/inet-sockets.ts';
import { cgroups } from '../../criu/restore/cgroups.ts';
import { withDescriptorsLeft } from '../../descriptors.ts';

const needsRoot = {
  skip: cgroups === undefined || process.getuid?.() !== 0 ? 'only root may do this' : false,
};
const directory = join(cgroups ?? '', `otherworld-test-unanswered-${process.pid}`);
const connection = {
  own: { address: Uint8Array.of(192, 0, 2, 1), port: 7001 },
  peer: { address: Uint8Array.of(192, 0, 2, 2), port: 50_000 },
};

const kept = { connections: [connection], ports: [connection.own] };

const becomes = async (look: () => boolean): Promise<void> => {
  const end = performance.now() + 20_000;
  while (!look()) {
    assert.ok(performance.now() < end);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};

const groups = [1, 2].map((group) => ({ group, plan: { connections: 1 } }));
const without = (group: number) => ({ group, plan: { connections: 0 } });

suite('connections that wait for their processes', needsRoot, () => {
  test('have their ports held though there are more than a process may have open files', async () => {
    const ports = Array.from({ length: 400 }, (_, i) => ({ ...connection.own, port: 20_000 + i }));
    withDescriptorsLeft(150, () => holdConnections(4, { connections: [connection], ports }, directory));
    const pid = readFileSync(join(directory, '4/cgroup.procs'), 'utf8').trim();
    const open = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    assert.equal(open.filter((link) => link.startsWith('socket:')).length, 1 + ports.length);
    await answerAll(directory);
  });

  test('are left unanswered by somebody who lives on, until it is told to end', async () => {
    holdConnections(1, kept, directory);
    holdConnections(2, { ...kept, ports: [] }, directory);
    const pid = readFileSync(join(directory, '1/cgroup.procs'), 'utf8').trim();
    // Not a child that ends with this program's session.
    assert.match(
      readFileSync(`/proc/${pid}/stat`, 'utf8'),
      new RegExp(`^${pid} \\(\\S+\\) \\S \\d+ ${pid} ${pid} `),
    );
    const open = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    assert.equal(open.filter((link) => link.includes('bpf_link')).length, 1, `${open}`);
    // The one that hears what comes, and the one that has the port.
    assert.equal(open.filter((link) => link.startsWith('socket:')).length, 2, `${open}`);
    const [, seconds] = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
    // Of a boot that waits, and of the unit that ends it.
    assert.ok(Number(seconds) >= 3600 + 60 * SANDBOX_MINUTES, seconds);
    assert.equal(answeredProblem(groups, directory), undefined);
    assert.deepEqual([isHeld(1, directory), isHeld(2, directory)], [true, true]);
    answerConnections(1, directory);
    await becomes(() => !isHeld(1, directory));
    assert.equal(isHeld(2, directory), true);
    assert.equal(
      answeredProblem(groups, directory),
      'the peers of its TCP connections may have been told that they are not there any more',
    );
    assert.equal(answeredProblem([...groups.slice(1), without(1)], directory), undefined);
    answerConnections(1, directory);
    await answerAll(directory);
    assert.equal(existsSync(directory), false);
    await answerAll(directory);
  });

  test('are nobody for a group without any', () => {
    holdConnections(3, { connections: [], ports: [] }, directory);
    assert.equal(answeredProblem([without(3)], directory), undefined);
    answerConnections(3, directory);
    assert.deepEqual([isHeld(3, directory), existsSync(directory)], [false, false]);
  });
});

test('the connections of a group are those that are made again; an IPv4 one of IPv6 sockets is what it is', () => {
  const mapped = [...new Array(10).fill(0), 0xff, 0xff, 192, 0, 2, 2];
  const lost: InetSocket = { ...socketAt([192, 0, 2, 3], false), broken: 'connected' };
  const files = [socketAt([192, 0, 2, 1]), socketAt(mapped), lost, socketAt([192, 0, 2, 4], false)];
  const { connections } = keptOf({ files: { ...noFiles, files } });
  assert.deepEqual(
    connections.map(({ own, peer }) => [own.address.join('.'), own.port, peer.address.length, peer.port]),
    [
      ['192.0.2.1', 80, 4, 4000],
      ['192.0.2.2', 80, 16, 4000],
    ],
  );
});

test('the ports that are kept for connections are those that no other socket of the group has', () => {
  const files = [
    { ...socketAt([192, 0, 2, 1]), sourcePort: 40_000 },
    // As one that a listening socket has accepted, with that one.
    socketAt([192, 0, 2, 1]),
    socketAt([0, 0, 0, 0], false),
    { ...socketAt([0xfe, 0x80, ...new Array(14).fill(1)]), sourcePort: 40_001, interfaceName: 'eth0' },
  ];
  const { connections, ports } = keptOf({ files: { ...noFiles, files } });
  assert.equal(connections.length, 3);
  assert.deepEqual(ports, [{ address: Uint8Array.of(192, 0, 2, 1), port: 40_000 }]);
});
