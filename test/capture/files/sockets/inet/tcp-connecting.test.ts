// Sockets that were being connected, in the fixtures: one of the connections there is made one that has no
// answer yet.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { captureProcesses } from '../../../../../src/capture/index.ts';
import { taskPtRegs } from '../../../../../src/linux/arch/x86/ptrace.ts';
import { inetSock, networkPort } from '../../../../../src/linux/inet.ts';
import { socketConnected, socketStruct } from '../../../../../src/linux/net.ts';
import { findTaskByPid } from '../../../../../src/linux/pid.ts';
import { taskAt } from '../../../../../src/linux/sched.ts';
import { sockStruct, tcpState } from '../../../../../src/linux/sock.ts';
import { tcpSock } from '../../../../../src/linux/tcp.ts';
import { adviceFor } from '../../../../../src/report/advice.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../../../../vmcore/fixtures.ts';
import { connectedOf } from './connected.ts';

for (const release of releases) {
  suite(`a socket of ${release} that is connecting`, () => {
    const { kinds } = truthOf(release);
    const fixture = openFixture(release);
    const Inet = fixture.bind(inetSock);
    const sockets = connectedOf(fixture, kinds.tcp);
    // The client has the port that the other end was listening on as its destination.
    const client =
      sockets.find((sk) => networkPort(Inet.at(sk).destinationPort) < networkPort(Inet.at(sk).sourcePort)) ??
      assert.fail('there is no client');
    const port = networkPort(Inet.at(client).destinationPort);
    const patch = (address: bigint, bytes: readonly number[]) => ({
      physical: fixture.memory.translate(address),
      bytes: Buffer.from(bytes),
    });
    const ofSock = (
      member: 'state' | 'sk_userlocks' | 'sk_err' | 'owned' | 'boundInterface',
      value: number,
    ) => patch(client + BigInt(fixture.bind(sockStruct).offsetOf(member)), [value]);
    const ofTcp = (member: 'fastopen_connect', value: number) =>
      patch(client + BigInt(fixture.bind(tcpSock).offsetOf(member)), [value]);
    /** What it has written, as a distance from what was acknowledged: the SYN is one. */
    const written = (bytes: number) => {
      const { snd_una } = fixture.bind(tcpSock).at(client);
      const number = Buffer.alloc(4);
      number.writeUInt32LE((snd_una + bytes) >>> 0);
      return patch(client + BigInt(fixture.bind(tcpSock).offsetOf('write_seq')), [...number]);
    };
    /** A buffer to be sent: the SYN, or data that follow it. */
    const buffer = (bytes: number) => {
      const own = taskAt(fixture, findTaskByPid(fixture, kinds.tcp) ?? 0n);
      // The part of the stack's last page that nobody uses.
      const skb = (taskPtRegs(fixture, own.stack).address >> 12n) << 12n;
      const offset = (structure: string, member: string) =>
        BigInt(fixture.layouts.member(structure, member)?.offsetBytes ?? 0);
      const head = client + offset('sock', 'sk_write_queue');
      return [
        patch(head + offset('sk_buff_head', 'next'), [...word(skb)]),
        patch(head + offset('sk_buff_head', 'qlen'), [1]),
        patch(skb + offset('sk_buff', 'next'), [...word(head)]),
        patch(skb + offset('sk_buff', 'len'), [bytes, 0, 0, 0]),
      ];
    };
    /** Four bits of a byte, in releases in which they are a bit field. */
    const locks = fixture.layouts.member('sock', 'sk_userlocks')?.bits;
    const connecting = [
      ...[ofSock('state', tcpState.synSent), written(1)],
      patch(
        fixture.bind(sockStruct).at(client).sk_socket + BigInt(fixture.bind(socketStruct).offsetOf('state')),
        [socketConnected.connecting],
      ),
      ...(['rcv_nxt', 'copied_seq', 'rcv_wup'] as const).map((member) =>
        patch(client + BigInt(fixture.bind(tcpSock).offsetOf(member)), [0, 0, 0, 0]),
      ),
    ];
    const captured = (...patches: ReturnType<typeof patch>[]) =>
      captureProcesses(openPatched(release, [...connecting, ...patches]), {
        roots: [kinds.tcp],
        includeDescendants: false,
      });

    test('has no connection, no port, and is told where to', () => {
      const { groups, refused } = captured();
      const [group] = groups;
      assert.ok(group, JSON.stringify(refused));
      const files = group.files.files.filter((file) => file.type === 'inet');
      const [found, ...others] = files.filter((file) => file.connecting !== undefined);
      assert.equal(others.length, 0);
      const loopback = Uint8Array.of(127, 0, 0, 1);
      assert.deepEqual(
        [found?.connecting?.port, found?.connecting?.address, found?.connecting?.source],
        [port, loopback, loopback].map((one) => (typeof one === 'number' ? one : Buffer.from(one))),
      );
      assert.deepEqual(
        [found?.state, found?.sourcePort, found?.destinationPort, found?.shutdown],
        [7, 0, 0, 0],
      );
      assert.ok(found?.sourceAddress.every((byte) => byte === 0));
      assert.equal(found?.connection, undefined);
      const notes = group.processes.flatMap(({ findings }) => findings.notes);
      assert.ok(
        notes.includes(
          `the connection to 127.0.0.1:${port}, which was being made, is begun anew from another port`,
        ),
        `${notes}`,
      );
    });

    test('is refused by name if it cannot be begun anew in the same way', () => {
      const reason = (...patches: ReturnType<typeof patch>[]): string =>
        captured(...patches)
          .refused.flatMap(({ reasons }) => reasons)
          .join();
      const beginning = `is connecting by TCP to 127.0.0.1:${port}`;
      const at = (text: string): RegExp => new RegExp(`^${beginning}${text}`.replaceAll('.', '\\.'));
      assert.match(reason(ofSock('owned', 1)), at(', and a CPU or a system call was at it'));
      assert.match(reason(ofSock('sk_err', 110)), at(', which has failed'));
      assert.match(
        reason(ofSock('sk_userlocks', 8 << (locks?.offset ?? 0))),
        at(' from an address or a port of its choice'),
      );
      assert.match(reason(ofTcp('fastopen_connect', 0xff)), at(' with its first data'));
      assert.match(reason(ofSock('boundInterface', 1)), at(' through an interface of its choice'));
      // sendto with MSG_FASTOPEN has told the process that 7 bytes are written.
      assert.match(reason(written(8)), at(' with its first data'));
      assert.match(reason(...buffer(7)), at(' with its first data'));
      assert.equal(reason(...buffer(0)), '');
      assert.match(adviceFor(reason(ofSock('owned', 1))) ?? '', /^a matter of the moment/);
    });
  });
}
