// Connections that cannot be kept, in the fixtures: a process there has a connection to itself. Where it may
// lose one, it comes back with one that is to be reset; where it may not, it is refused as ever.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { captureProcesses } from '../../../src/capture/index.ts';
import { fdSlots } from '../../../src/linux/fdtable.ts';
import { fileAt } from '../../../src/linux/file.ts';
import { socketStruct } from '../../../src/linux/net.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { fileKind } from '../../../src/linux/readers/file-kind.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import { sockStruct, tcpState } from '../../../src/linux/sock.ts';
import { tcpSock } from '../../../src/linux/tcp.ts';
import type { InetSocket } from '../../../src/model/socket.ts';
import { type Findings, fateOf } from '../../../src/model/verdict.ts';
import { adviceFor } from '../../../src/report/advice.ts';
import type { Kernel } from '../../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf } from '../../vmcore/fixtures.ts';

/** The connected sockets of a process. */
function connectedOf(kernel: Kernel, pid: number): bigint[] {
  const { files } = taskAt(kernel, findTaskByPid(kernel, pid) ?? 0n);
  return fdSlots(kernel, files).flatMap(({ file }) => {
    const open = file === 0n ? undefined : fileAt(kernel, file);
    if (open === undefined || fileKind(kernel, open.f_op) !== 'socket') return [];
    const { sk } = kernel.bind(socketStruct).at(open.private_data);
    return kernel.bind(sockStruct).at(sk).state === tcpState.established ? [sk] : [];
  });
}

interface Patch {
  readonly physical: number;
  readonly bytes: Buffer;
}

for (const release of releases) {
  suite(`a connection of ${release} that cannot be kept`, () => {
    const { kinds } = truthOf(release);
    const whole = openFixture(release);
    const [first = 0n] = connectedOf(whole, kinds.tcp);

    /** Of one end: a member of `struct sock` or `struct tcp_sock`, by the name that its view has. */
    const patch = (offset: number, bytes: number, value: bigint): Patch => {
      const content = Buffer.alloc(8);
      content.writeBigUInt64LE(value);
      return { physical: whole.memory.translate(first + BigInt(offset)), bytes: content.subarray(0, bytes) };
    };
    const Sk = whole.bind(sockStruct);
    const Tcp = whole.bind(tcpSock);
    const WORKED_ON = patch(Sk.offsetOf('owned'), 4, 1n);

    function captured(
      patches: readonly Patch[],
      mayLose: boolean,
    ): { files: InetSocket[]; reasons: readonly string[]; findings: Findings | undefined } {
      const { groups, refused } = captureProcesses(openPatched(release, patches), {
        roots: [kinds.tcp],
        includeDescendants: false,
        losses: (pid) => new Set(mayLose && pid === kinds.tcp ? (['connections'] as const) : []),
      });
      const files = groups.flatMap((group) => group.files.files.filter((file) => file.type === 'inet'));
      const findings = groups[0]?.processes[0]?.findings;
      return { files, reasons: refused.flatMap(({ reasons }) => reasons), findings };
    }
    const brokenOf = (files: readonly InetSocket[]) => files.filter(({ broken }) => broken !== undefined);

    test('costs its process, unless that may lose it', () => {
      const { reasons } = captured([WORKED_ON], false);
      assert.match(
        reasons.join(),
        /^has a TCP connection that was being worked on when the kernel died \(fd/,
      );
      assert.match(adviceFor(reasons[0] ?? '') ?? '', /--allow-loss connections/);
      assert.deepEqual(captured([WORKED_ON], true).reasons, []);
    });

    test('is one that is reset, with nothing in its queues; the other end hears of it', () => {
      const { files, findings } = captured([WORKED_ON], true);
      const [lost = assert.fail()] = brokenOf(files);
      assert.equal(brokenOf(files).length, 1);
      const { state, shutdown, broken, connection = assert.fail() } = lost;
      assert.deepEqual([state, shutdown, broken], [tcpState.established, 0, 'connected']);
      assert.deepEqual([connection.unread.bytes, connection.unacknowledged.bytes], [0, 0]);
      const other = files.find(
        ({ sourcePort, connection }) => connection && sourcePort === lost.destinationPort,
      );
      assert.ok(other?.lateOptions.some(({ name, value }) => name === 'SO_KEEPALIVE' && value === 1));
      const losses = findings?.losses ?? [];
      assert.ok(losses.every(({ kind }) => kind === 'connections'));
      assert.deepEqual(losses.map(({ what }) => what.replace(/to [\d.:]+/, 'to X')).sort(), [
        `the connection to X is reset: it is one that was being worked on when the kernel died`,
        `the connection to X is reset: its other end, that of PID ${kinds.tcp} (kind-tcp), cannot be kept`,
      ]);
      assert.deepEqual(fateOf(findings ?? assert.fail()), 'with-losses');
    });

    test('says that what had come and was not read goes with it', () => {
      const tcp = Tcp.at(first);
      const unread = patch(Tcp.offsetOf('copied_seq'), 4, BigInt((tcp.copied_seq - 5) >>> 0));
      const { findings } = captured([WORKED_ON, unread], true);
      assert.ok(findings?.losses.some(({ what }) => what.includes('with what had come and was not read')));
    });

    test('that was being made is not shut down: it can be made again', () => {
      const state = patch(Sk.offsetOf('state'), 1, BigInt(tcpState.synSent));
      assert.match(captured([state], false).reasons.join(), /^is connecting by TCP to /);
      const { files } = captured([state], true);
      assert.deepEqual(
        brokenOf(files).map(({ broken }) => broken),
        ['connecting'],
      );
    });

    test('for what the kernel has of it is reset all the same, without that', () => {
      const keys = patch(Tcp.offsetOf('fastOpenContext'), 8, 64n);
      const { reasons } = captured([keys], false);
      assert.match(reasons.join(), /^has a TCP connection with a key of its own \(TCP_FASTOPEN_KEY\)/);
      assert.match(adviceFor(reasons[0] ?? '') ?? '', /--allow-loss connections/);
      assert.doesNotMatch(
        adviceFor('has a TCP socket with a key of its own (TCP_FASTOPEN_KEY)') ?? '',
        /--allow-loss/,
      );
      assert.equal(brokenOf(captured([keys], true).files).length, 1);
    });

    test('is refused for all that if more would be lost, or if it is damaged', () => {
      const user = patch(Sk.offsetOf('sk_user_data'), 8, 64n);
      const zeroCopy = patch(Sk.offsetOf('sk_zckey'), 4, 3n);
      const damaged = patch(Tcp.offsetOf('rcv_nxt'), 4, BigInt((Tcp.at(first).rcv_nxt + 5) >>> 0));
      assert.match(captured([WORKED_ON, user], true).reasons.join(), /something in the kernel uses/);
      const state = patch(Sk.offsetOf('state'), 1, BigInt(tcpState.synSent));
      assert.match(captured([state, user], true).reasons.join(), /something in the kernel uses/);
      assert.match(captured([WORKED_ON, zeroCopy], true).reasons.join(), /MSG_ZEROCOPY/);
      assert.match(captured([damaged], true).reasons.join(), /that is damaged/);
    });

    test('is none where all can be kept: what may be lost is not', () => {
      const { files, findings } = captured([], true);
      assert.deepEqual([brokenOf(files), findings?.losses], [[], []]);
      assert.equal(fateOf(findings ?? assert.fail()), 'whole');
    });
  });
}
