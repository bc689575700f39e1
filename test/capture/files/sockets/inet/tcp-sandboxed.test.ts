// Connections of a process in a sandbox, in the fixtures: it is restored when the system boots, after others.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { CaptureContext } from '../../../../../src/capture/files/context.ts';
import { FileRefusal } from '../../../../../src/capture/files/refusal.ts';
import { captureInet } from '../../../../../src/capture/files/sockets/inet/inet.ts';
import { endsOf } from '../../../../../src/capture/files/sockets/inet/tcp-ends.ts';
import { patienceOf, secondsOfRetries } from '../../../../../src/capture/files/sockets/inet/tcp-sandbox.ts';
import type { Sandboxes } from '../../../../../src/capture/sandboxes.ts';
import { initialMountNamespace } from '../../../../../src/linux/dcache.ts';
import { fdSlots, fdtable, filesStruct } from '../../../../../src/linux/fdtable.ts';
import { fileAt } from '../../../../../src/linux/file.ts';
import { inetSock } from '../../../../../src/linux/inet.ts';
import { socketConnected, socketStruct } from '../../../../../src/linux/net.ts';
import { netStruct } from '../../../../../src/linux/net-namespace.ts';
import { findTaskByPid } from '../../../../../src/linux/pid.ts';
import { readClocks } from '../../../../../src/linux/readers/clocks.ts';
import { fileKind } from '../../../../../src/linux/readers/file-kind.ts';
import { listTasks } from '../../../../../src/linux/readers/task-list.ts';
import { taskAt, taskStruct } from '../../../../../src/linux/sched.ts';
import { sockStruct, tcpState } from '../../../../../src/linux/sock.ts';
import { tcpSock } from '../../../../../src/linux/tcp.ts';
import type { InetSocket } from '../../../../../src/model/socket.ts';
import { adviceFor } from '../../../../../src/report/advice.ts';
import type { Kernel } from '../../../../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf } from '../../../../vmcore/fixtures.ts';

for (const release of releases) {
  suite(`a TCP socket of ${release} in a sandbox`, () => {
    const { tcp: pid } = truthOf(release).kinds;

    const protectedOf = (kernel: Kernel, other: number) => ({
      ...{ pid: other, filesId: 1 + other },
      task: findTaskByPid(kernel, other) ?? assert.fail('it is not there'),
    });

    /** The sockets of the process that are no others than TCP, or why one of them is refused. */
    function captured(
      kernel: Kernel,
      {
        mayLose = false,
        isSandboxed = true,
        others = [] as readonly number[],
        sandboxes = { unitOf: () => (isSandboxed ? 'web.service' : undefined) } as Sandboxes,
      } = {},
    ): { sockets: InetSocket[]; refusals: FileRefusal[]; losses: string[]; context: CaptureContext } {
      const task = findTaskByPid(kernel, pid) ?? assert.fail('it is not there');
      const context = new CaptureContext(
        kernel,
        readClocks(kernel),
        [{ pid, task, filesId: 1 }, ...others.map((other) => protectedOf(kernel, other))],
        listTasks(kernel),
        { sandboxes, allowedLosses: () => new Set(mayLose ? (['connections'] as const) : []) },
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
      const losses = (context.losses.get(pid) ?? []).map(({ what }) => what);
      return { sockets, refusals, losses, context };
    }

    const whole = openFixture(release);
    const outside = captured(whole, { isSandboxed: false });
    const connected = outside.sockets.filter(({ connection }) => connection !== undefined);

    test('has its connections, as without one', () => {
      assert.ok(connected.length > 0);
      const { sockets, refusals } = captured(whole);
      assert.deepEqual([sockets, refusals], [outside.sockets, outside.refusals]);
    });

    /**
     * The fixture with a second process, in another mount namespace, that has one end of a connection of
     * which the first one has the other.
     */
    function divided(): {
      kernel: Kernel;
      other: number;
      /** Where `net.ipv4.tcp_retries2` of the connection is. */
      retriesAt: bigint;
      patchesFor: (change: (sk: bigint, far: bigint) => Patch[]) => Kernel;
    } {
      const { systemV: other } = truthOf(release).kinds;
      const filesOf = (of: number) => taskAt(whole, findTaskByPid(whole, of) ?? 0n).files;
      const sockOf = (address: bigint): bigint | undefined => {
        const file = address === 0n ? undefined : fileAt(whole, address);
        if (file === undefined || fileKind(whole, file.f_op) !== 'socket') return undefined;
        const { sk } = whole.bind(socketStruct).at(file.private_data);
        return whole.bind(sockStruct).at(sk).state === tcpState.established ? sk : undefined;
      };
      const ends = fdSlots(whole, filesOf(pid)).flatMap(({ fd, file }) => {
        const sk = sockOf(file);
        if (sk === undefined) return [];
        return [{ fd, file, sk, ...endsOf(whole.bind(sockStruct).at(sk), whole.bind(inetSock).at(sk)) }];
      });
      const far =
        ends.find(({ own }) => ends.some(({ peer }) => peer.port === own.port)) ?? assert.fail('no pair');
      const near = ends.find(({ peer }) => peer.port === far.own.port) ?? assert.fail('no pair');
      const { offsetBytes = 0 } = whole.layouts.member('tcp_sock', 'inet_conn.icsk_ca_priv') ?? {};
      const retriesAt = near.sk + BigInt(offsetBytes);
      const network = retriesAt - BigInt(whole.bind(netStruct).offsetOf('tcpRetries2'));
      const task = findTaskByPid(whole, other) ?? 0n;
      const { nsproxy } = taskAt(whole, task);
      const slotAt = (of: number, fd: number): bigint => {
        const { fd: table } = whole.bind(fdtable).at(whole.bind(filesStruct).at(filesOf(of)).fdt);
        return table + BigInt(8 * fd);
      };
      const [slot = assert.fail()] = fdSlots(whole, filesOf(other));
      const patches = [
        word(slotAt(other, slot.fd), far.file),
        word(slotAt(pid, far.fd), slot.file),
        // Another namespace is where the mount namespace is in the ordinary one.
        word(task + BigInt(whole.bind(taskStruct).offsetOf('nsproxy')), nsproxy + 8n),
        // The fixture lacks the page with the settings: their network is where nobody reads.
        ...[near, far].map(({ sk }) => word(sk + BigInt(whole.bind(sockStruct).offsetOf('net')), network)),
        patched(retriesAt, 1, 15n),
      ];
      const patchesFor = (change: (sk: bigint, far: bigint) => Patch[]): Kernel =>
        openPatched(release, [...patches, ...change(near.sk, far.sk)]);
      return { kernel: openPatched(release, patches), other, patchesFor, retriesAt };
    }

    type Patch = { physical: number; bytes: Buffer };
    const patched = (address: bigint, bytes: number, value: bigint): Patch => {
      const content = Buffer.alloc(8);
      content.writeBigUInt64LE(value);
      return { physical: whole.memory.translate(address), bytes: content.subarray(0, bytes) };
    };
    const word = (address: bigint, value: bigint): Patch => patched(address, 8, value);
    const initial = initialMountNamespace(whole);
    /** Either all namespaces are those of a service, or all but the system's own. */
    const inOwn = { unitOf: () => 'web.service' };
    const oneInOwn = { unitOf: (one: bigint) => (one === initial ? undefined : 'web.service') };

    for (const [what, sandboxes] of Object.entries({ 'in another sandbox': inOwn, 'in none': oneInOwn })) {
      test(`has a connection whose other end is ${what}, and depends on who has that`, () => {
        const { kernel, other } = divided();
        const { sockets, refusals, losses, context } = captured(kernel, { others: [other], sandboxes });
        assert.deepEqual([refusals, losses], [[], []]);
        const apart = sockets.filter((one) => one.apart !== undefined);
        assert.deepEqual(
          apart.map((one) => one.apart),
          [{ pid: other, comm: 'kind-sysv' }],
        );
        assert.ok(apart.every(({ connection }) => connection !== undefined));
        assert.deepEqual(context.dependences, [{ pids: [pid, other], why: 'a TCP connection' }]);
        assert.ok(!context.edges.some(({ pids }) => pids.includes(other)));
      });
    }

    test('comes back together with who has the other end outside of any sandbox too', () => {
      const { kernel, other } = divided();
      const { sockets, context } = captured(kernel, { others: [other], isSandboxed: false });
      assert.ok(sockets.every(({ apart }) => apart === undefined));
      assert.deepEqual(context.dependences, []);
      assert.ok(context.edges.some(({ pids }) => pids.includes(pid) && pids.includes(other)));
    });

    test('is refused, by name, if an end that may be first would give up, or loses the connection', () => {
      const { other, patchesFor } = divided();
      const at = (sk: bigint): bigint => sk + BigInt(whole.bind(tcpSock).offsetOf('userTimeout'));
      const nearGivesUp = patchesFor((near) => [patched(at(near), 4, 20_000n)]);
      const farGivesUp = patchesFor((_, far) => [patched(at(far), 4, 20_000n)]);
      const reasons = (kernel: Kernel, sandboxes: Sandboxes): string[] =>
        captured(kernel, { others: [other], sandboxes }).refusals.map(({ reason }) => reason);
      const start = `has a TCP connection with PID ${other} (kind-sysv), which is not in the same sandbox`;
      const endOf = (one: string) =>
        `${start}, and the end of PID ${one} gives up after 20 s without an answer (TCP_USER_TIMEOUT)`;
      const far = endOf(`${other} (kind-sysv)`);
      const against = `; PID ${other} (kind-sysv), at its other end, may not lose it`;
      assert.deepEqual(reasons(farGivesUp, inOwn), [`${far}${against}`]);
      // The one in the sandbox is the last: its peer is there.
      assert.deepEqual(reasons(farGivesUp, oneInOwn), []);
      const [near, ...more] = reasons(nearGivesUp, oneInOwn);
      assert.match(near ?? '', /, and the end of PID \d+ \(\S+\) gives up after 20 s without an answer/);
      assert.deepEqual(more, []);
      assert.match(adviceFor(far) ?? '', /--allow-loss connections/);
      const { sockets, refusals, losses } = captured(farGivesUp, { mayLose: true, others: [other] });
      assert.deepEqual(refusals, []);
      const lost = sockets.filter(({ broken }) => broken === 'connected');
      assert.equal(lost.length, 1);
      for (const { state, connection, connecting, sourcePort, destinationPort, sourceAddress } of lost) {
        assert.deepEqual([state, connection, connecting], [tcpState.close, undefined, undefined]);
        assert.deepEqual([sourcePort, destinationPort], [0, 0]);
        assert.ok(sourceAddress.every((byte) => byte === 0));
      }
      assert.ok(
        losses.some((loss) => /^the connection to \S+ is reset: it is one with PID \d+/.test(loss)),
        `${losses}`,
      );
    });

    test('is refused, by name, where the loopback does not lead to the other end', () => {
      const { other, patchesFor } = divided();
      const Inet = whole.bind(inetSock);
      const LAN = Buffer.from([192, 0, 2, 7]).readUInt32LE();
      const kernel = patchesFor((near, far) =>
        [near, far].flatMap((sk) =>
          whole.bind(sockStruct).at(sk).family === 2
            ? (['saddr', 'daddr'] as const).map((m) => patched(sk + BigInt(Inet.offsetOf(m)), 4, BigInt(LAN)))
            : assert.fail('it is none of IPv4'),
        ),
      );
      const [refusal] = captured(kernel, { others: [other] }).refusals;
      assert.match(refusal?.reason ?? '', /, which is not in the same sandbox, by another address than the/);
    });

    test('waits as long as its own settings have it', () => {
      const none = { keepIdleSeconds: undefined, keepIntervalSeconds: undefined, keepCount: undefined };
      const system = { seconds: 924.6, by: 'net.ipv4.tcp_retries2' };
      assert.deepEqual(patienceOf({ userTimeout: 0 }, 15, false, { ...none, keepIdleSeconds: 1 }), system);
      assert.deepEqual(patienceOf({ userTimeout: 0 }, 15, true, none), system);
      const go = { keepIdleSeconds: 15, keepIntervalSeconds: 15, keepCount: 9 };
      assert.deepEqual(patienceOf({ userTimeout: 0 }, 15, true, go), { seconds: 150, by: 'SO_KEEPALIVE' });
      const both = patienceOf({ userTimeout: 30_000 }, 15, true, go);
      assert.deepEqual(both, { seconds: 30, by: 'TCP_USER_TIMEOUT' });
      // tcp(7) has 924.6 seconds for 15; RFC 1122 asks for 100 at least, which is 8.
      assert.deepEqual(
        [5, 8, 9, 15].map((retries) => Math.round(10 * secondsOfRetries(retries)) / 10),
        [12.6, 102.2, 204.6, 924.6],
      );
    });

    test('is refused, by name, where the system gives up soon, or an end has errors told to it', () => {
      const { other, patchesFor, retriesAt } = divided();
      const retries = patchesFor(() => [patched(retriesAt, 1, 8n)]);
      const reasonOf = (kernel: Kernel): string =>
        captured(kernel, { others: [other] })
          .refusals.map(({ reason }) => reason)
          .join();
      assert.match(reasonOf(retries), /gives up after 102 s without an answer \(net\.ipv4\.tcp_retries2\)/);
      const Inet = whole.bind(inetSock);
      const told = patchesFor((near) => {
        const now = Inet.at(near);
        if (now.inet_flags === undefined) {
          const at = near + BigInt(Inet.offsetOf('recverr'));
          return [patched(at, 1, BigInt(whole.memory.u8(at) | 1))];
        }
        const at = near + BigInt(Inet.offsetOf('inet_flags'));
        const bit = 1n << BigInt(whole.enumerator('INET_FLAGS_RECVERR'));
        return [patched(at, 8, whole.memory.u64(at) | bit)];
      });
      assert.match(reasonOf(told), /has errors of the network told to it \(IP_RECVERR\)/);
    });

    test('is refused, or loses it, while a connection is being made', () => {
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
      for (const { reason } of refused.refusals)
        assert.equal(reason, 'has a TCP connection that is being made, in a sandbox');
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
