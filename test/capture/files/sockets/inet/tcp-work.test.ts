// Connections that somebody was at when the kernel died: which of them come back.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { FileRefusal } from '../../../../../src/capture/files/refusal.ts';
import { disagree } from '../../../../../src/capture/files/sockets/inet/tcp-queue.ts';
import {
  workProblem as problemOf,
  readAtWork,
  type Worker,
} from '../../../../../src/capture/files/sockets/inet/tcp-work.ts';
import { captureProcesses } from '../../../../../src/capture/index.ts';
import { taskPtRegs } from '../../../../../src/linux/arch/x86/ptrace.ts';
import { fdSlots } from '../../../../../src/linux/fdtable.ts';
import { fileAt } from '../../../../../src/linux/file.ts';
import { socketConnected, socketStruct } from '../../../../../src/linux/net.ts';
import { findTaskByPid } from '../../../../../src/linux/pid.ts';
import { fileKind } from '../../../../../src/linux/readers/file-kind.ts';
import { taskAt } from '../../../../../src/linux/sched.ts';
import { sockStruct, tcpState } from '../../../../../src/linux/sock.ts';
import { tcpSock } from '../../../../../src/linux/tcp.ts';
import { adviceFor } from '../../../../../src/report/advice.ts';
import { openFixture, openPatched, releases, truthOf } from '../../../../vmcore/fixtures.ts';
import { MadeKernel } from '../../../../vmcore/made-kernel.ts';
import { connectedOf } from './connected.ts';

suite('a connection that was being worked on', () => {
  const quiet = { state: tcpState.established as number, sk_err: 0, owned: 0, spinLock: 0 };
  const owned = { ...quiet, owned: 1 };
  const connected = { state: socketConnected.connected as number };
  const workProblem = (sock: typeof quiet, workers: readonly Worker[]) => problemOf(sock, connected, workers);
  const worker = (place: Worker['place'], done: number | undefined = 4096, hasLock = true): Worker => ({
    ...{ name: 'sendto', isTransfer: true, place, hasLock, done, isBlocked: false },
  });
  const outside = worker('outside', 4096, false);

  test('by a CPU comes back, if it is open both ways and without an error', () => {
    const held = { ...quiet, spinLock: 1 };
    assert.equal(workProblem(held, []), undefined);
    assert.equal(workProblem(held, [worker('at-rest'), outside]), undefined);
    for (const state of [tcpState.closeWait, tcpState.finWait1, tcpState.finWait2, tcpState.lastAck])
      assert.equal(workProblem({ ...held, state }, []), 'it was ending');
    assert.equal(workProblem({ ...held, sk_err: 104 }, []), 'it was ending');
    // Who waits in connect would be told that it is connected already.
    const connecting = { state: socketConnected.connecting };
    assert.equal(problemOf(held, connecting, []), 'its process may not have been told that it was there');
  });

  test('by a call comes back, if the call and the socket have counted the same bytes, or none', () => {
    assert.equal(workProblem(owned, [worker('at-rest')]), undefined);
    assert.equal(workProblem(owned, [worker('between', 0)]), undefined);
    assert.equal(workProblem(owned, [worker('at-rest'), outside]), undefined);
    const cannot = 'how much of a sendto is done cannot be told';
    assert.equal(workProblem(owned, [worker('between', 1)]), cannot);
    assert.equal(workProblem(owned, [worker('between', undefined)]), cannot);
    assert.equal(workProblem(owned, [worker('at-rest'), worker('unknown', undefined)]), cannot);
    // Its call would be in doubt: it would send again what the socket has.
    assert.equal(workProblem(owned, [worker('at-rest'), { ...outside, isBlocked: true }]), cannot);
    assert.equal(
      workProblem(owned, [worker('at-rest'), { ...outside, isBlocked: true, done: 0 }]),
      undefined,
    );
    // It is told what it has sent, though it waits for a page of its file.
    const sends = { ...outside, name: 'sendfile', isBlocked: true };
    assert.equal(workProblem(owned, [worker('at-rest'), sends]), undefined);
    assert.equal(
      workProblem(owned, [worker('at-rest'), { ...sends, done: undefined }]),
      'how much of a sendfile is done cannot be told',
    );
    const taken = { ...worker('at-rest'), name: 'recvmsg', done: undefined };
    assert.equal(workProblem(owned, [taken]), 'how much of a recvmsg is done cannot be told');
    assert.equal(
      workProblem(owned, [{ ...taken, place: 'outside' }]),
      'how much of a recvmsg is done cannot be told',
    );
    const set = { ...worker('unknown', undefined, false), name: 'setsockopt', isTransfer: false };
    assert.equal(workProblem(owned, [worker('at-rest'), set]), 'a setsockopt on it was not finished');
  });

  test('by nobody that is known does not come back', () => {
    assert.equal(workProblem(owned, []), 'which call had its lock cannot be told');
    assert.equal(workProblem(owned, [outside]), 'which call had its lock cannot be told');
    // It waits for the lock: somebody else has it.
    assert.equal(workProblem(owned, [worker('at-rest', 0, false)]), 'which call had its lock cannot be told');
    assert.equal(workProblem(owned, [worker('at-rest', 0, false), worker('at-rest')]), undefined);
    // Only one has it: the descriptor of the other one was that of another socket.
    const two = [worker('at-rest'), worker('at-rest')];
    assert.equal(workProblem(owned, two), 'which call had its lock cannot be told');
  });
});

for (const release of releases) {
  suite(`a connection of ${release} of which something was half done`, () => {
    const { kinds } = truthOf(release);
    const fixture = openFixture(release);
    const [one = 0n, other = 0n] = connectedOf(fixture, kinds.tcp);
    const word = (address: bigint, value: number) => {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32LE(value >>> 0);
      return { physical: fixture.memory.translate(address), bytes };
    };
    const ofSock = (sk: bigint, member: 'owned' | 'spinLock', value: number) =>
      word(sk + BigInt(fixture.bind(sockStruct).offsetOf(member)), value);
    const long = (address: bigint, value: number | bigint) => {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64LE(BigInt(value));
      return { physical: fixture.memory.translate(address), bytes };
    };
    const task = taskAt(fixture, findTaskByPid(fixture, kinds.tcp) ?? 0n);
    const registers = taskPtRegs(fixture, task.stack).address;
    const numberOf = (sk: bigint) =>
      fdSlots(fixture, task.files).find(({ file }) => {
        const open = fileAt(fixture, file);
        if (open === undefined || fileKind(fixture, open.f_op) !== 'socket') return false;
        return fixture.bind(socketStruct).at(open.private_data).sk === sk;
      }) ?? assert.fail('nobody has it');
    /** A buffer in what is to be sent, in the part of the stack's last page that nobody uses. */
    const buffer = (sk: bigint, seq: number, bytes: number) => {
      const skb = (registers >> 12n) << 12n;
      const head = sk + BigInt(fixture.layouts.member('sock', 'sk_write_queue')?.offsetBytes ?? 0);
      const inHead = (member: string) =>
        BigInt(fixture.layouts.member('sk_buff_head', member)?.offsetBytes ?? 0);
      const inSkb = (member: string) =>
        skb + BigInt(fixture.layouts.member('sk_buff', member)?.offsetBytes ?? 0);
      return [
        long(head + inHead('next'), skb),
        word(head + inHead('qlen'), 1),
        long(inSkb('next'), head),
        ...(['head', 'data'] as const).map((member) => long(inSkb(member), skb + 1024n)),
        word(inSkb('len'), bytes),
        word(inSkb('data_len'), 0),
        word(inSkb('cb'), seq),
        word(inSkb('cb') + 4n, seq + bytes),
      ];
    };
    const moved = (sk: bigint, member: 'rcv_nxt' | 'copied_seq' | 'rcv_wup' | 'write_seq', by: number) => {
      const address = sk + BigInt(fixture.bind(tcpSock).offsetOf(member));
      return word(address, fixture.memory.u32(address) + by);
    };
    const captured = (patches: Parameters<typeof openPatched>[1]) =>
      captureProcesses(openPatched(release, patches), { roots: [kinds.tcp], includeDescendants: false });
    const reasons = (patches: Parameters<typeof openPatched>[1]): string =>
      captured(patches)
        .refused.flatMap((refusal) => refusal.reasons)
        .join();

    test('comes back while a CPU has its lock, if its numbers and its queues agree', () => {
      assert.equal(captured([ofSock(one, 'spinLock', 1)]).groups.length, 1);
      const between = reasons([ofSock(one, 'spinLock', 1), moved(one, 'rcv_nxt', 7)]);
      assert.match(between, /what was received ends 7 bytes before it should/);
      const written = reasons([ofSock(one, 'spinLock', 1), moved(one, 'write_seq', 7)]);
      assert.match(written, /what is to be sent ends 7 bytes before it should/);
    });

    test('does not come back while a call has its lock that is none of its processes', () => {
      const reason = reasons([ofSock(one, 'owned', 1)]);
      assert.match(
        reason,
        /has a TCP connection that was being worked on when the kernel died: which call had its lock/,
      );
      assert.match(adviceFor(reason) ?? '', /^a matter of the moment/);
    });

    test('is a refusal of the moment', () => {
      const [refusal] = captured([ofSock(one, 'owned', 1)]).refused;
      assert.deepEqual(
        [...(refusal?.moments ?? [])].map(([, moment]) => moment),
        ['passing'],
      );
    });

    test('may have less counted as sent than its other end has received, while it is worked on', () => {
      const BYTES = 5;
      const at = fixture.memory.u32(one + BigInt(fixture.bind(tcpSock).offsetOf('snd_nxt')));
      const arrived = [
        ...(['rcv_nxt', 'copied_seq', 'rcv_wup'] as const).map((member) => moved(other, member, BYTES)),
        moved(one, 'write_seq', BYTES),
        ...buffer(one, at, BYTES),
      ];
      assert.match(reasons(arrived), /is damaged: its two ends do not fit each other/);
      const work = ofSock(one, 'spinLock', 1);
      const [group = assert.fail(reasons([...arrived, work]))] = captured([...arrived, work]).groups;
      const files = group.files.files.filter((file) => file.type === 'inet');
      const found = files.find(({ connection }) => connection?.unacknowledged.bytes === BYTES);
      assert.equal(found?.connection?.unsentBytes, 0, 'else the kernel would not take its acknowledgement');
      const ends = (['rcv_nxt', 'copied_seq', 'rcv_wup'] as const).map((name) =>
        moved(other, name, BYTES + 1),
      );
      assert.match(
        reasons([...arrived, ...ends, work]),
        /worked on when the kernel died: its two ends do not fit each other/,
      );
    });

    test('does not come back with a call on it that is not finished, whichever argument the socket is', () => {
      const { fd } = numberOf(one);
      const calling = (name: string, ...given: readonly number[]) => {
        const { systemCalls } = fixture.architecture;
        const number = Array.from({ length: 400 }, (_, i) => i).find((i) => systemCalls.name(i) === name);
        const values = { orig_ax: number ?? assert.fail(name), di: given[0], si: given[1], dx: given[2] };
        return Object.entries(values).map(([member, value = 0]) =>
          long(registers + BigInt(fixture.layouts.member('pt_regs', member)?.offsetBytes ?? 0), value),
        );
      };
      const held = ofSock(one, 'spinLock', 1);
      const why = (...call: Parameters<typeof calling>): string => reasons([held, ...calling(...call)]);
      assert.match(why('setsockopt', fd), /kernel died: a setsockopt on it was not finished/);
      assert.match(why('splice', 1000, 0, fd), /kernel died: a splice on it was not finished/);
      assert.match(why('splice', fd, 0, 1000), /kernel died: a splice on it was not finished/);
      assert.doesNotMatch(why('setsockopt', 1000, 0, fd), /was not finished/);
      // Its stack is that of another call, and has nothing that counts the bytes of this one.
      assert.match(why('sendto', fd), /how much of a sendto is done cannot be told/);
    });
  });
}

suite('what does not fit in a connection that nobody is at', () => {
  const SEEN = 1000;

  /** The refusal of a connection that does not fit itself or its other end, which moves or not meanwhile. */
  function refusalOf(
    isAlive: boolean,
    moves: 'write_seq' | 'rcv_nxt' | 'copied_seq' | undefined,
  ): FileRefusal {
    const made = new MadeKernel('debian13');
    made.isAlive = isAlive;
    const ends = [made.allocate('tcp_sock'), made.allocate('tcp_sock')].map((at) => {
      made.set('tcp_sock', at, 'write_seq', SEEN);
      return { sock: made.bind(sockStruct).at(at), tcp: made.bind(tcpSock).at(at) };
    });
    try {
      return readAtWork(made, ends, 'can-be-lost', () => {
        if (moves !== undefined) made.set('tcp_sock', ends[1]?.tcp.address ?? 0n, moves, SEEN + 7);
        return disagree('its two ends do not fit each other');
      });
    } catch (error) {
      assert.ok(error instanceof FileRefusal);
      return error;
    }
  }

  test('is damage in a dead kernel, and in a living one if it stands still', () => {
    for (const { isDamage, moment, loss } of [refusalOf(false, undefined), refusalOf(true, undefined)])
      assert.deepEqual([isDamage, moment, loss], [true, undefined, undefined]);
  });

  test('is of the moment in a living one if it moves meanwhile, and nothing is lost for it', () => {
    for (const member of ['write_seq', 'rcv_nxt', 'copied_seq'] as const) {
      const { isDamage, moment, loss, reason } = refusalOf(true, member);
      assert.deepEqual([isDamage, moment, loss], [false, 'passing', undefined]);
      assert.equal(
        reason,
        'has a TCP connection that moved while it was looked at: its two ends do not fit each other',
      );
      assert.match(adviceFor(reason) ?? '', /^a matter of the moment/);
    }
  });
});
