// The other ends of connections, in the fixtures: a process there has a connection to itself.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { fits } from '../../../../../src/capture/files/sockets/inet/tcp-peer.ts';
import { captureProcesses } from '../../../../../src/capture/index.ts';
import { inetSock } from '../../../../../src/linux/inet.ts';
import { sockStruct } from '../../../../../src/linux/sock.ts';
import { tcpSock } from '../../../../../src/linux/tcp.ts';
import type { InetSocket } from '../../../../../src/model/socket.ts';
import type { Kernel } from '../../../../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf } from '../../../../vmcore/fixtures.ts';
import { connectedOf } from './connected.ts';

type Member = 'destinationPort' | 'network' | 'saddr' | 'daddr';

/** Physical address of a member of each connected socket of a process. */
function memberOfConnected(kernel: Kernel, pid: number, member: Member): number[] {
  const offset =
    member === 'network' ? kernel.bind(sockStruct).offsetOf('net') : kernel.bind(inetSock).offsetOf(member);
  return connectedOf(kernel, pid).map((sk) => kernel.memory.translate(sk + BigInt(offset)));
}

function tcpMember(kernel: Kernel, pid: number, member: 'rcv_nxt' | 'copied_seq' | 'rcv_wup'): number[] {
  const offset = BigInt(kernel.bind(tcpSock).offsetOf(member));
  return connectedOf(kernel, pid).map((sk) => kernel.memory.translate(sk + offset));
}

test('what one end waits for, the other one has sent, and keeps still', () => {
  assert.deepEqual(
    [99, 100, 200, 201].map((rcv_nxt) => fits({ snd_una: 100 }, 200, { rcv_nxt })),
    [false, true, true, false],
  );
});

for (const release of releases) {
  suite(`the other end of a connection of ${release}`, () => {
    const { kinds } = truthOf(release);
    const captured = (kernel: Kernel): { connections: InetSocket[]; losses: readonly string[] } => {
      const { groups } = captureProcesses(kernel, { roots: [kinds.tcp], includeDescendants: false });
      const [group = assert.fail('it is refused')] = groups;
      const connections = group.files.files
        .filter((file) => file.type === 'inet')
        .filter(({ connection }) => connection !== undefined);
      const losses = group.processes.flatMap(({ findings }) => findings.losses);
      return { connections, losses: losses.map(({ what }) => what) };
    };
    const isAsked = ({ lateOptions }: InetSocket): boolean =>
      lateOptions.some(({ name }) => name === 'SO_KEEPALIVE');

    test('is there if a process has it that comes back', () => {
      const { connections, losses } = captured(openFixture(release));
      assert.deepEqual(connections.map(isAsked), [false, false]);
      assert.ok(losses.every((loss) => !loss.includes('is reset')));
    });

    test('is gone if no process has it: the kernel asks, and hears of it', () => {
      const [physical = 0] = memberOfConnected(openFixture(release), kinds.tcp, 'destinationPort');
      const { connections, losses } = captured(
        openPatched(release, [{ physical, bytes: Buffer.from([0x1b, 0x59]) }]),
      );
      assert.deepEqual(connections.map(isAsked), [true, true]);
      assert.ok(
        losses.includes('the connection to 127.0.0.1:7001 is reset: no process had its other end'),
        `${losses}`,
      );
    });

    test('in another network namespace does not come back with it: the kernel asks', () => {
      const [physical = 0] = memberOfConnected(openFixture(release), kinds.tcp, 'network');
      const { connections, losses } = captured(
        openPatched(release, [{ physical, bytes: Buffer.from([0x10]) }]),
      );
      assert.deepEqual(connections.map(isAsked), [true, true]);
      assert.equal(losses.filter((loss) => loss.endsWith('in another network namespace')).length, 2);
    });

    test('was on this machine if a process has a connection at that address', () => {
      const kernel = openFixture(release);
      const patch = (member: 'saddr' | 'daddr', last: readonly number[]) =>
        memberOfConnected(kernel, kinds.tcp, member).map((physical, i) => ({
          physical,
          bytes: Buffer.from([10, 0, 0, last[i] ?? 0]),
        }));
      const { connections } = captured(
        openPatched(release, [...patch('saddr', [1, 2]), ...patch('daddr', [2, 9])]),
      );
      assert.deepEqual(connections.map(isAsked), [true, false]);
    });

    test('has to have sent what this one has received, and to keep what it has not', () => {
      const kernel = openFixture(release);
      const moved = (['rcv_nxt', 'copied_seq', 'rcv_wup'] as const).flatMap((member) => {
        const [physical = 0] = tcpMember(kernel, kinds.tcp, member);
        const bytes = Buffer.alloc(4);
        const now = Buffer.from(kernel.physical.view(physical, 4)).readUInt32LE();
        bytes.writeUInt32LE((now + 5) >>> 0);
        return [{ physical, bytes }];
      });
      const { refused } = captureProcesses(openPatched(release, moved), {
        roots: [kinds.tcp],
        includeDescendants: false,
      });
      assert.match(refused.flatMap(({ reasons }) => reasons).join(), /its two ends do not fit each other/);
    });
  });
}
