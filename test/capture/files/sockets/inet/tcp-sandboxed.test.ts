// Connections of a process in a sandbox, in the fixtures: it is restored when the system boots, and nobody is
// to be told until then that they are there.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { CaptureContext } from '../../../../../src/capture/files/context.ts';
import { FileRefusal } from '../../../../../src/capture/files/refusal.ts';
import { captureInet } from '../../../../../src/capture/files/sockets/inet/inet.ts';
import { fdSlots } from '../../../../../src/linux/fdtable.ts';
import { fileAt } from '../../../../../src/linux/file.ts';
import { socketConnected, socketStruct } from '../../../../../src/linux/net.ts';
import { findTaskByPid } from '../../../../../src/linux/pid.ts';
import { readClocks } from '../../../../../src/linux/readers/clocks.ts';
import { fileKind } from '../../../../../src/linux/readers/file-kind.ts';
import { listTasks } from '../../../../../src/linux/readers/task-list.ts';
import { taskAt } from '../../../../../src/linux/sched.ts';
import { sockStruct, tcpState } from '../../../../../src/linux/sock.ts';
import { tcpSock } from '../../../../../src/linux/tcp.ts';
import type { InetSocket } from '../../../../../src/model/socket.ts';
import { adviceFor } from '../../../../../src/report/advice.ts';
import type { Kernel } from '../../../../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf } from '../../../../vmcore/fixtures.ts';

const REASON = "has a TCP connection that the system's network would answer before its sandbox is there";

for (const release of releases) {
  suite(`a TCP socket of ${release} in a sandbox`, () => {
    const { tcp: pid } = truthOf(release).kinds;

    /** The sockets of the process that are no others than TCP, or why one of them is refused. */
    function captured(
      kernel: Kernel,
      { mayLose = false, isSandboxed = true }: { mayLose?: boolean; isSandboxed?: boolean } = {},
    ): { sockets: InetSocket[]; refusals: FileRefusal[]; losses: string[] } {
      const task = findTaskByPid(kernel, pid) ?? assert.fail('it is not there');
      const context = new CaptureContext(
        kernel,
        readClocks(kernel),
        [{ pid, task, filesId: 1 }],
        listTasks(kernel),
        {
          sandboxes: { unitOf: () => (isSandboxed ? 'web.service' : undefined) },
          allowedLosses: () => new Set(mayLose ? (['connections'] as const) : []),
        },
      );
      const refusals: FileRefusal[] = [];
      const sockets = fdSlots(kernel, taskAt(kernel, task).files).flatMap(({ file: address }) => {
        const file = address === 0n ? undefined : fileAt(kernel, address);
        if (file === undefined || fileKind(kernel, file.f_op) !== 'socket') return [];
        const socket = kernel.bind(socketStruct).at(file.private_data);
        const sock = kernel.bind(sockStruct).at(socket.sk);
        if (sock.sk_protocol !== 6) return [];
        try {
          return [captureInet(context, file, socket, sock)];
        } catch (error) {
          if (!(error instanceof FileRefusal)) throw error;
          refusals.push(error);
          return [];
        }
      });
      return { sockets, refusals, losses: (context.losses.get(pid) ?? []).map(({ what }) => what) };
    }

    const whole = openFixture(release);
    const outside = captured(whole, { isSandboxed: false });
    const connected = outside.sockets.filter(({ connection }) => connection !== undefined);

    test('with a connection is refused, by name, and others are not', () => {
      assert.ok(connected.length > 0);
      const { sockets, refusals } = captured(whole);
      assert.deepEqual(
        refusals.map(({ reason }) => reason),
        connected.map(() => REASON),
      );
      assert.equal(sockets.length, outside.sockets.length - connected.length);
      assert.match(adviceFor(REASON) ?? '', /--allow-loss connections/);
      assert.doesNotMatch(adviceFor(REASON) ?? '', /matter of the moment/);
    });

    test('comes back as one that was reset where that is allowed, and needs no network for it', () => {
      const { sockets, refusals, losses } = captured(whole, { mayLose: true });
      assert.deepEqual(refusals, []);
      const lost = sockets.filter(({ broken }) => broken === 'connected');
      assert.equal(lost.length, connected.length);
      for (const { state, connection, connecting, sourcePort, destinationPort, sourceAddress } of lost) {
        assert.deepEqual([state, connection, connecting], [tcpState.close, undefined, undefined]);
        assert.deepEqual([sourcePort, destinationPort], [0, 0]);
        assert.ok(sourceAddress.every((byte) => byte === 0));
      }
      assert.equal(losses.length, connected.length);
      for (const loss of losses)
        assert.match(loss, /^the connection to \S+ is reset: it is one that the sys/);
    });

    test('is refused, or lost, as well while a connection is being made', () => {
      const [sk = 0n] = fdSlots(whole, taskAt(whole, findTaskByPid(whole, pid) ?? 0n).files).flatMap(
        ({ file: address }) => {
          const file = address === 0n ? undefined : fileAt(whole, address);
          if (file === undefined || fileKind(whole, file.f_op) !== 'socket') return [];
          const { sk } = whole.bind(socketStruct).at(file.private_data);
          return whole.bind(sockStruct).at(sk).state === tcpState.established ? [sk] : [];
        },
      );
      const [Sk, Tcp] = [whole.bind(sockStruct), whole.bind(tcpSock)];
      const patch = (address: bigint, bytes: number, value: number) => {
        const content = Buffer.alloc(bytes);
        content.writeUIntLE(value, 0, bytes);
        return { physical: whole.memory.translate(address), bytes: content };
      };
      const ofTcp = (member: Parameters<typeof Tcp.offsetOf>[0], value: number) =>
        patch(sk + BigInt(Tcp.offsetOf(member)), 4, value);
      const socketState = BigInt(whole.bind(socketStruct).offsetOf('state'));
      const patches = [
        patch(sk + BigInt(Sk.offsetOf('state')), 1, tcpState.synSent),
        patch(Sk.at(sk).sk_socket + socketState, 4, socketConnected.connecting),
        ...(['rcv_nxt', 'copied_seq', 'rcv_wup'] as const).map((member) => ofTcp(member, 0)),
        ofTcp('write_seq', (Tcp.at(sk).snd_una + 1) >>> 0),
      ];
      const kernel = openPatched(release, patches);
      const isBegun = ({ connecting }: InetSocket): boolean => connecting !== undefined;
      assert.equal(captured(kernel, { isSandboxed: false }).sockets.filter(isBegun).length, 1);
      const refused = captured(kernel);
      assert.equal(refused.sockets.filter(isBegun).length, 0);
      assert.ok(refused.refusals.length > 0);
      assert.ok(refused.refusals.every(({ reason }) => reason === REASON));
      const { sockets } = captured(kernel, { mayLose: true });
      assert.equal(sockets.filter(({ broken }) => broken === 'connecting').length, 1);
      const bits = whole.layouts.member('sock', 'sk_userlocks')?.bits?.offset ?? 0;
      const bound = patch(sk + BigInt(Sk.offsetOf('sk_userlocks')), 1, 8 << bits);
      const { refusals } = captured(openPatched(release, [...patches, bound]), { mayLose: true });
      const [reason = assert.fail('it is not refused')] = refusals.map((refusal) => refusal.reason);
      assert.match(reason, /^is connecting by TCP to \S+ from a place of its choice, in a sandbox$/);
      assert.doesNotMatch(adviceFor(reason) ?? '', /--allow-loss/);
    });
  });
}
