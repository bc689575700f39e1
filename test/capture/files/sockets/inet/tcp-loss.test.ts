// Connections that cannot be kept, in the fixtures: a process there has a connection to itself. Where it may
// lose one, it comes back with one that is to be reset; where it may not, it is refused as ever.

import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { captureProcesses } from '../../../../../src/capture/index.ts';
import { fdSlots } from '../../../../../src/linux/fdtable.ts';
import { fileAt } from '../../../../../src/linux/file.ts';
import { type InetSock, inetSock } from '../../../../../src/linux/inet.ts';
import { socketConnected, socketStruct } from '../../../../../src/linux/net.ts';
import { findTaskByPid } from '../../../../../src/linux/pid.ts';
import { fileKind } from '../../../../../src/linux/readers/file-kind.ts';
import { listTasks } from '../../../../../src/linux/readers/task-list.ts';
import { taskAt } from '../../../../../src/linux/sched.ts';
import { sockStruct, tcpState } from '../../../../../src/linux/sock.ts';
import { tcpSock } from '../../../../../src/linux/tcp.ts';
import type { InetSocket } from '../../../../../src/model/socket.ts';
import { type Findings, fateOf, type Moment } from '../../../../../src/model/verdict.ts';
import { adviceFor } from '../../../../../src/report/advice.ts';
import { IPPROTO_TCP } from '../../../../../src/system/abi.ts';
import type { Kernel } from '../../../../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf } from '../../../../vmcore/fixtures.ts';

/** The TCP sockets of a process in some state. */
function socketsOf(kernel: Kernel, pid: number, state: number): bigint[] {
  const { files } = taskAt(kernel, findTaskByPid(kernel, pid) ?? 0n);
  return fdSlots(kernel, files).flatMap(({ file }) => {
    const open = file === 0n ? undefined : fileAt(kernel, file);
    if (open === undefined || fileKind(kernel, open.f_op) !== 'socket') return [];
    const { sk } = kernel.bind(socketStruct).at(open.private_data);
    const sock = kernel.bind(sockStruct).at(sk);
    return sock.sk_protocol === IPPROTO_TCP && sock.state === state ? [sk] : [];
  });
}

function eightBytes(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

/** The process that has started those of the fixtures. */
function guestKinds(kernel: Kernel): number {
  const found = listTasks(kernel).tasks.map((task) => taskAt(kernel, task));
  return found.find(({ comm }) => comm === 'guest-kinds')?.pid ?? assert.fail('it is not there');
}

type Own = Pick<InetSock, 'saddr' | 'sourcePort'>;

interface Patch {
  readonly physical: number;
  readonly bytes: Buffer;
}

for (const release of releases) {
  suite(`a connection of ${release} that cannot be kept`, () => {
    const { kinds } = truthOf(release);
    const whole = openFixture(release);
    const [first = 0n] = socketsOf(whole, kinds.tcp, tcpState.established);
    /** Another process has a socket without a connection, and some that listen. */
    const otherPid = guestKinds(whole);
    const [idle = 0n] = socketsOf(whole, otherPid, tcpState.close);
    const [listening = 0n] = socketsOf(whole, otherPid, tcpState.listen);

    const write = (address: bigint, bytes: Uint8Array): Patch => ({
      physical: whole.memory.translate(address),
      bytes: Buffer.from(bytes),
    });
    /** Of one end: a member of `struct sock` or `struct tcp_sock`, by the name that its view has. */
    const patch = (offset: number, bytes: number, value: bigint | number, sk = first): Patch => {
      const content = Buffer.alloc(8);
      content.writeBigUInt64LE(BigInt(value));
      return write(sk + BigInt(offset), content.subarray(0, bytes));
    };
    const Sk = whole.bind(sockStruct);
    const Tcp = whole.bind(tcpSock);
    const Inet = whole.bind(inetSock);
    const WORKED_ON = patch(Sk.offsetOf('owned'), 4, 1n);
    const SPINNING = patch(Sk.offsetOf('spinLock'), 4, 1n);
    const inState = (state: number): Patch => patch(Sk.offsetOf('state'), 1, state);
    const ofSocket = (state: number): Patch =>
      patch(whole.bind(socketStruct).offsetOf('state'), 4, state, Sk.at(first).sk_socket);
    const numbers = (value: number): Patch[] =>
      (['rcv_nxt', 'copied_seq', 'rcv_wup'] as const).map((one) => patch(Tcp.offsetOf(one), 4, value));
    const CONNECTING_NOW = [
      ...[inState(tcpState.synSent), ofSocket(socketConnected.connecting), ...numbers(0)],
      patch(Tcp.offsetOf('write_seq'), 4, (Tcp.at(first).snd_una + 1) >>> 0),
    ];
    /** From a port that it has chosen, so that it cannot be begun anew from another one. */
    const BOUND = patch(
      Sk.offsetOf('sk_userlocks'),
      1,
      8 << (whole.layouts.member('sock', 'sk_userlocks')?.bits?.offset ?? 0),
    );
    const CONNECTS = [...CONNECTING_NOW, BOUND];
    const OWN_KEY = patch(Tcp.offsetOf('fastOpenContext'), 8, first);

    /** The ends of another socket, in the other process. */
    function otherSocket(from: Own, to: Own, state: number): Patch[] {
      const port = (value: Uint8Array, member: 'sourcePort' | 'destinationPort') =>
        write(idle + BigInt(Inet.offsetOf(member)), value);
      return [
        patch(Sk.offsetOf('state'), 1, state, idle),
        patch(Sk.offsetOf('family'), 2, Sk.at(first).family, idle),
        write(idle + BigInt(Inet.offsetOf('saddr')), from.saddr),
        write(idle + BigInt(Inet.offsetOf('daddr')), to.saddr),
        port(from.sourcePort, 'sourcePort'),
        port(to.sourcePort, 'destinationPort'),
      ];
    }

    /** Five bytes in the queue of what was received, in the place of a socket that nobody asks for. */
    function unread(): Patch[] {
      const skb = listening;
      const head = skb + 512n;
      const buffer = Buffer.alloc(1024);
      const offset = (structure: string, member: string): number =>
        whole.layouts.member(structure, member)?.offsetBytes ?? assert.fail(member);
      const set = (member: string, value: bigint) =>
        buffer.writeBigUInt64LE(value, offset('sk_buff', member));
      const queue = Sk.at(first).receiveQueue;
      set('next', queue);
      buffer.writeUInt32LE(5, offset('sk_buff', 'len'));
      set('head', head);
      set('data', head);
      buffer.writeUInt32LE(64, offset('sk_buff', 'end'));
      const { rcv_nxt } = Tcp.at(first);
      buffer.writeUInt32LE((rcv_nxt - 5) >>> 0, offset('sk_buff', 'cb'));
      buffer.writeUInt32LE(rcv_nxt, offset('sk_buff', 'cb') + 4);
      return [
        write(skb, buffer),
        write(queue, eightBytes(skb)),
        write(queue + BigInt(offset('sk_buff_head', 'qlen')), Buffer.of(1, 0, 0, 0)),
        patch(Tcp.offsetOf('copied_seq'), 4, (rcv_nxt - 5) >>> 0),
      ];
    }
    const ENDED = [inState(tcpState.close), patch(Sk.offsetOf('sk_shutdown'), 1, 3)];

    function captured(
      patches: readonly Patch[],
      mayLose: boolean,
      roots: readonly number[] = [kinds.tcp],
    ): {
      files: InetSocket[];
      reasons: readonly string[];
      moments: readonly Moment[];
      findings: Findings | undefined;
    } {
      const { groups, refused } = captureProcesses(openPatched(release, patches), {
        roots,
        includeDescendants: false,
        losses: (pid) => new Set(mayLose && pid === kinds.tcp ? (['connections'] as const) : []),
      });
      const files = groups.flatMap((group) => group.files.files.filter((file) => file.type === 'inet'));
      const findings = groups[0]?.processes[0]?.findings;
      const own = refused.filter(({ pid }) => pid === kinds.tcp);
      const moments = own.flatMap((refusal) => [...(refusal.moments?.values() ?? [])]);
      return { files, reasons: own.flatMap(({ reasons }) => reasons), moments, findings };
    }
    const brokenOf = (files: readonly InetSocket[]) => files.filter(({ broken }) => broken !== undefined);

    test('costs its process, unless that may lose it', () => {
      const { reasons } = captured([WORKED_ON], false);
      assert.match(
        reasons.join(),
        /^has a TCP connection that was being worked on when the kernel died: which call had its lock .* \(fd/,
      );
      assert.match(adviceFor(reasons[0] ?? '') ?? '', /--allow-loss connections/);
      assert.deepEqual(captured([WORKED_ON], true).reasons, []);
    });

    test('is refused where a connect could still be made again, and would find a stream at its end', () => {
      const { reasons, files } = captured([WORKED_ON, ofSocket(socketConnected.connecting)], true);
      assert.match(reasons.join(), /kernel died: its process may not have been told that it was there \(fd/);
      assert.deepEqual(brokenOf(files), []);
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
        `the connection to X is reset: it is one that was being worked on when the kernel died (which call had its lock cannot be told)`,
        `the connection to X is reset: its other end, that of PID ${kinds.tcp} (kind-tcp), cannot be kept`,
      ]);
      assert.deepEqual(fateOf(findings ?? assert.fail()), 'with-losses');
    });

    test('says what goes with it, an end that was not read apart', () => {
      const { copied_seq, write_seq, snd_una } = Tcp.at(first);
      const lossOf = (...patches: readonly Patch[]): string => {
        const losses = captured([WORKED_ON, ...patches], true).findings?.losses ?? [];
        return losses.find(({ what }) => what.includes('being worked on'))?.what ?? assert.fail('none');
      };
      const behind = (member: 'copied_seq' | 'snd_una', value: number, bytes: number) =>
        patch(Tcp.offsetOf(member), 4, (value - bytes) >>> 0);
      assert.match(
        lossOf(behind('copied_seq', copied_seq, 5)),
        /reset, with what had come and was not read:/,
      );
      const peerEnded = inState(tcpState.closeWait);
      assert.match(lossOf(behind('copied_seq', copied_seq, 1), peerEnded), /is reset: it is one/);
      assert.match(
        lossOf(behind('snd_una', snd_una, 5)),
        /is reset, with what was written and its peer had not confirmed:/,
      );
      assert.match(lossOf(patch(Tcp.offsetOf('snd_una'), 4, write_seq - 1), inState(4)), /is reset: it/);
    });

    test('has the error of a reset, whatever error waited on it', () => {
      const ECONNABORTED = patch(Sk.offsetOf('sk_err'), 4, 103);
      const waited = (notes: readonly string[] = []) => notes.filter((note) => note.includes('SO_ERROR'));
      assert.deepEqual(waited(captured([WORKED_ON, ECONNABORTED], true).findings?.notes), []);
      assert.equal(waited(captured([ECONNABORTED], true).findings?.notes).length, 1);
    });

    test('is none if it comes back as it was while a CPU was at it', () => {
      const { files, findings, reasons } = captured([SPINNING], true);
      assert.deepEqual([brokenOf(files), findings?.losses, reasons], [[], [], []]);
    });

    test('while a CPU was at it is lost for what is half done in its queues, and that is of the moment', () => {
      const halfDone = [SPINNING, patch(Tcp.offsetOf('write_seq'), 4, (Tcp.at(first).write_seq + 7) >>> 0)];
      const { reasons, moments } = captured(halfDone, false);
      assert.match(reasons.join(), /worked on when the kernel died: what is to be sent ends 7 bytes before/);
      assert.deepEqual(moments, ['passing']);
      assert.deepEqual(
        brokenOf(captured(halfDone, true).files).map(({ broken }) => broken),
        ['connected'],
      );
    });

    test('is refused for all that while a CPU was at it if only its two ends do not fit', () => {
      const all = (['rcv_nxt', 'copied_seq', 'rcv_wup'] as const).map((one) =>
        patch(Tcp.offsetOf(one), 4, (Tcp.at(first)[one] + 5) >>> 0),
      );
      const { reasons } = captured([SPINNING, ...all], true);
      assert.match(reasons.join(), /worked on when the kernel died: its two ends do not fit each other/);
      assert.doesNotMatch(adviceFor(reasons[0] ?? '') ?? '', /--allow-loss/);
    });

    test('that was being made is none where it can be begun anew', () => {
      const { files, findings } = captured(CONNECTING_NOW, true);
      assert.deepEqual(brokenOf(files), []);
      assert.equal(files.filter(({ connecting }) => connecting !== undefined).length, 1);
      assert.ok(findings?.losses.every(({ what }) => !what.includes('that was being made')));
    });

    test('that was being made is not shut down: it can be made again', () => {
      const refused = captured(CONNECTS, false);
      assert.match(
        refused.reasons.join(),
        /^is connecting by TCP to \S+ from an address or a port of its choice/,
      );
      assert.deepEqual(refused.moments, ['passing']);
      assert.match(adviceFor(refused.reasons[0] ?? '') ?? '', /--allow-loss connections/);
      const { files, findings } = captured(CONNECTS, true);
      assert.deepEqual(
        brokenOf(files).map(({ broken }) => broken),
        ['connecting'],
      );
      assert.ok(
        findings?.losses.some(({ what }) => /; a connect that waits for it is made again$/.test(what)),
      );
    });

    test('that was being made is not made again without its keys, nor otherwise than it was asked for', () => {
      const signs = patch(Tcp.offsetOf('md5sig'), 8, first);
      assert.match(captured([...CONNECTS, signs], true).reasons.join(), /that signs its segments/);
      const fast = write(first + BigInt(Tcp.offsetOf('fastOpenContext')), eightBytes(first));
      for (const mayLose of [false, true]) {
        const reasons = captured([...CONNECTS, fast], mayLose).reasons;
        assert.match(
          reasons.join(),
          /^has a TCP socket that uses TCP_FASTOPEN and is connecting to \S+ \(fd/,
        );
        assert.doesNotMatch(adviceFor(reasons[0] ?? '') ?? '', /--allow-loss/);
      }
    });

    test('that its program has accepted while it is being made is one that it has', () => {
      const opens = patch(Tcp.offsetOf('fastopen_rsk'), 8, first);
      const { files } = captured([inState(tcpState.synReceived), opens], true);
      assert.deepEqual(
        brokenOf(files).map(({ broken }) => broken),
        ['connected'],
      );
    });

    test('for what the kernel has of it is reset all the same, without that', () => {
      const { reasons } = captured([OWN_KEY], false);
      assert.match(reasons.join(), /^has a TCP connection with a key of its own \(TCP_FASTOPEN_KEY\)/);
      assert.match(adviceFor(reasons[0] ?? '') ?? '', /--allow-loss connections/);
      assert.doesNotMatch(
        adviceFor('has a TCP socket with a key of its own (TCP_FASTOPEN_KEY)') ?? '',
        /--allow-loss/,
      );
      const { files, findings } = captured([OWN_KEY], true);
      assert.equal(brokenOf(files).length, 1);
      assert.ok(
        findings?.losses.some(({ what }) => what.includes('is reset, with what was set for TCP_FASTOPEN:')),
      );
    });

    test('is refused for all that if it was signed or encrypted, whatever was done to it', () => {
      for (const [member, said] of [
        ['md5sig', /TCP_MD5SIG/],
        ['upperProtocol', /TCP_ULP/],
      ] as const) {
        const inside = patch(Tcp.offsetOf(member), 8, first);
        for (const patches of [[inside], [inside, WORKED_ON]]) {
          const { reasons } = captured(patches, true);
          assert.match(reasons.join(), said);
          assert.doesNotMatch(adviceFor(reasons[0] ?? '') ?? '', /--allow-loss/);
        }
      }
    });

    test('is refused for all that if more would be lost, or if it is damaged', () => {
      const user = patch(Sk.offsetOf('sk_user_data'), 8, 64n);
      const zeroCopy = patch(Sk.offsetOf('sk_zckey'), 4, 3n);
      const damaged = patch(Tcp.offsetOf('rcv_nxt'), 4, BigInt((Tcp.at(first).rcv_nxt + 5) >>> 0));
      assert.match(captured([WORKED_ON, user], true).reasons.join(), /something in the kernel uses/);
      assert.match(captured([...CONNECTS, user], true).reasons.join(), /something in the kernel uses/);
      assert.match(captured([WORKED_ON, zeroCopy], true).reasons.join(), /MSG_ZEROCOPY/);
      assert.match(captured([damaged], true).reasons.join(), /that is damaged/);
      assert.match(captured([damaged, OWN_KEY], true).reasons.join(), /that is damaged/);
      const noKey = patch(Tcp.offsetOf('fastOpenContext'), 8, 64n);
      assert.match(captured([noKey], true).reasons.join(), /damaged: a pointer of it leads nowhere/);
    });

    test('is not lost while a call is about to begin it or a CPU has its answer: that is no damage', () => {
      const answered = numbers(77);
      for (const patches of [[inState(tcpState.synSent)], [...CONNECTS, ...answered]]) {
        const { reasons, moments } = captured([...patches, WORKED_ON], true);
        assert.match(
          reasons.join(),
          /^is connecting by TCP to \S+, and a CPU or a system call was changing it/,
        );
        assert.deepEqual(moments, ['passing']);
        assert.doesNotMatch(adviceFor(reasons[0] ?? '') ?? '', /--allow-loss/);
      }
      const { files } = captured([...CONNECTING_NOW, WORKED_ON], true);
      assert.deepEqual(
        brokenOf(files).map(({ broken }) => broken),
        ['connecting'],
      );
    });

    test('that is being made with something that lasts is refused for that, not for the moment', () => {
      const urgent = patch(Tcp.offsetOf('urg_data'), 2, 0x141);
      for (const patches of [CONNECTING_NOW, CONNECTS]) {
        const { reasons, moments } = captured([...patches, urgent], false);
        assert.match(reasons.join(), /^has a TCP connection with urgent data/);
        assert.deepEqual(moments, []);
        const { files } = captured([...patches, urgent], true);
        assert.deepEqual(
          brokenOf(files).map(({ broken }) => broken),
          ['connecting'],
        );
      }
    });

    test('is not lost if its first data went with its SYN: the call has told of them', () => {
      const data = patch(Tcp.offsetOf('write_seq'), 4, (Tcp.at(first).snd_una + 8) >>> 0);
      const { reasons } = captured([...CONNECTING_NOW, data], true);
      assert.match(reasons.join(), /^is connecting by TCP to \S+ with its first data/);
      assert.doesNotMatch(adviceFor(reasons[0] ?? '') ?? '', /--allow-loss/);
    });

    test('is no one that is being made if its state alone says so', () => {
      for (const state of [tcpState.synSent, tcpState.synReceived])
        assert.match(
          captured([inState(state)], true).reasons.join(),
          /damaged: its two halves differ in their states/,
        );
      const heard = [inState(tcpState.synSent), ofSocket(socketConnected.connecting)];
      assert.match(captured(heard, true).reasons.join(), /damaged: it has received before there was/);
      assert.match(
        captured(
          [...unread(), inState(tcpState.synReceived), ofSocket(socketConnected.connecting)],
          true,
        ).reasons.join(),
        /damaged: it has received before there was/,
      );
    });

    test('has ended before all was read: it is made again if nobody else has its addresses', () => {
      const ended = [...ENDED, ...unread()];
      const { reasons } = captured(ended, false);
      assert.match(reasons.join(), /^has data from a TCP connection to \S+ that has ended, and has not read/);
      assert.match(adviceFor(reasons[0] ?? '') ?? '', /--allow-loss connections/);
      const { files } = captured(ended, true);
      assert.deepEqual(
        brokenOf(files).map(({ broken }) => broken),
        ['connected'],
      );
      const own = Inet.at(first);
      const [second = 0n] = socketsOf(whole, kinds.tcp, tcpState.established).slice(1);
      for (const state of [tcpState.established, tcpState.synSent, tcpState.close]) {
        const taken = [...ended, ...otherSocket(own, Inet.at(second), state)];
        for (const mayLose of [false, true]) {
          const [reason = assert.fail('it is not refused')] = captured(taken, mayLose).reasons;
          assert.match(reason, /has not read it; another socket has the same addresses \(fd/);
          assert.doesNotMatch(adviceFor(reason) ?? '', /--allow-loss/);
        }
      }
    });

    test('has not ended with something to read if the rest of it says otherwise', () => {
      const [, ...shutdown] = ENDED;
      assert.match(
        captured([inState(tcpState.close), ...unread()], true).reasons.join(),
        /damaged: it has ended, and is not shut down/,
      );
      const more = patch(Tcp.offsetOf('rcv_nxt'), 4, (Tcp.at(first).rcv_nxt + 1) >>> 0);
      assert.match(
        captured([inState(tcpState.close), ...shutdown, ...unread(), more], true).reasons.join(),
        /damaged: what was received ends/,
      );
    });

    test('names who has its other end and may not lose it', () => {
      const port = Buffer.of(0x1b, 0x59);
      const own = Inet.at(first);
      const moved = write(first + BigInt(Inet.offsetOf('destinationPort')), port);
      const peer = { saddr: own.daddr, sourcePort: port };
      const patches = [WORKED_ON, moved, ...otherSocket(peer, own, tcpState.established)];
      const { reasons, moments } = captured(patches, true, [kinds.tcp, otherPid]);
      const reason = reasons.join();
      assert.deepEqual(moments, ['passing']);
      assert.match(
        reason,
        /that was being worked on when the kernel died: .*; PID \d+ \(guest-kinds\), at its other end, may not lose it \(fd/,
      );
      assert.match(adviceFor(reason) ?? '', /--allow-loss connections` for the processes at both ends/);
    });

    test('is none where all can be kept: what may be lost is not', () => {
      const { files, findings } = captured([], true);
      assert.deepEqual([brokenOf(files), findings?.losses], [[], []]);
      assert.equal(fateOf(findings ?? assert.fail()), 'whole');
    });
  });
}
