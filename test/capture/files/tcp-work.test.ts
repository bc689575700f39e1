// Connections that somebody was at when the kernel died: which of them come back.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { workProblem as problemOf, type Worker } from '../../../src/capture/files/tcp-work.ts';
import { captureProcesses } from '../../../src/capture/index.ts';
import { socketConnected } from '../../../src/linux/net.ts';
import { sockStruct, tcpState } from '../../../src/linux/sock.ts';
import { tcpSock } from '../../../src/linux/tcp.ts';
import { adviceFor } from '../../../src/report/advice.ts';
import { openFixture, openPatched, releases, truthOf } from '../../vmcore/fixtures.ts';
import { connectedOf } from './connected.ts';

suite('a connection that was being worked on', () => {
  const quiet = { state: tcpState.established as number, sk_err: 0, owned: 0, spinLock: 0 };
  const owned = { ...quiet, owned: 1 };
  const connected = { state: socketConnected.connected as number };
  const workProblem = (sock: typeof quiet, workers: readonly Worker[]) => problemOf(sock, connected, workers);
  const worker = (place: Worker['place'], done: number | undefined = 4096): Worker => ({
    ...{ name: 'sendto', place, done },
  });

  test('by a CPU comes back, if it is open both ways and without an error', () => {
    const held = { ...quiet, spinLock: 1 };
    assert.equal(workProblem(held, []), undefined);
    assert.equal(workProblem(held, [worker('at-rest'), worker('outside')]), undefined);
    for (const state of [tcpState.closeWait, tcpState.finWait1, tcpState.finWait2, tcpState.lastAck])
      assert.equal(workProblem({ ...held, state }, []), 'it was ending');
    assert.equal(workProblem({ ...held, sk_err: 104 }, []), 'it was ending');
    // Who waits in connect would be told that it is connected already.
    const connecting = { state: socketConnected.connecting };
    assert.equal(problemOf(held, connecting, []), 'nobody had been told that it was there');
  });

  test('by a call comes back, if the call and the socket have counted the same bytes, or none', () => {
    assert.equal(workProblem(owned, [worker('at-rest')]), undefined);
    assert.equal(workProblem(owned, [worker('between', 0)]), undefined);
    assert.equal(workProblem(owned, [worker('at-rest'), worker('outside')]), undefined);
    const cannot = 'how much of a sendto is done cannot be told';
    assert.equal(workProblem(owned, [worker('between', 1)]), cannot);
    assert.equal(workProblem(owned, [worker('between', undefined)]), cannot);
    assert.equal(workProblem(owned, [worker('at-rest'), worker('unknown', undefined)]), cannot);
  });

  test('by nobody that is known, or with packets for nobody, does not come back', () => {
    assert.equal(workProblem(owned, []), 'which call had its lock cannot be told');
    assert.equal(workProblem(owned, [worker('outside')]), 'which call had its lock cannot be told');
    assert.equal(workProblem(quiet, []), 'it has packets that nobody was to look at');
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
    const moved = (sk: bigint, member: 'rcv_nxt' | 'copied_seq' | 'write_seq', by: number) => {
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
      const arrived = (['rcv_nxt', 'copied_seq'] as const).map((member) => moved(other, member, 5));
      const rcvWup = word(
        other + BigInt(fixture.bind(tcpSock).offsetOf('rcv_wup')),
        fixture.memory.u32(other + BigInt(fixture.bind(tcpSock).offsetOf('rcv_wup'))) + 5,
      );
      // Nothing of it was written either: the two do not fit, whoever was at work.
      assert.match(
        reasons([...arrived, rcvWup, ofSock(one, 'spinLock', 1)]),
        /its two ends do not fit each other/,
      );
    });
  });
}
