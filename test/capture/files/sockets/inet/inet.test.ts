import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { FileRefusal } from '../../../../../src/capture/files/refusal.ts';
import {
  otherSocket,
  tcpShutdown,
  tcpStateOf,
  withoutConnection,
} from '../../../../../src/capture/files/sockets/inet/inet.ts';
import { chosenInterfaces } from '../../../../../src/capture/files/sockets/inet/ip-options.ts';
import { captureProcesses } from '../../../../../src/capture/index.ts';
import { sockStruct, tcpState } from '../../../../../src/linux/sock.ts';
import { adviceFor } from '../../../../../src/report/advice.ts';
import { openFixture, openPatched, releases, truthOf } from '../../../../vmcore/fixtures.ts';
import { connectedOf } from './connected.ts';

const ends = {
  sourceAddress: Uint8Array.of(10, 0, 2, 15),
  sourcePort: 40000,
  destinationAddress: Uint8Array.of(10, 0, 2, 2),
  destinationPort: 5432,
};

suite('a TCP socket', () => {
  test('comes back in every state but that in which the other end is making its connection', () => {
    const sentences = Object.values(tcpState).map((state) => {
      try {
        return tcpStateOf(state, ends);
      } catch (error) {
        assert.ok(error instanceof FileRefusal);
        return error.reason;
      }
    });
    assert.deepEqual(sentences, [
      1,
      // It has none yet: it is begun anew.
      7,
      'is being connected by TCP to 10.0.2.2:5432',
      4,
      5,
      // Only the kernel's own remainder of a connection waits so long.
      'has a TCP socket in the impossible state 6',
      7,
      8,
      9,
      10,
      11,
    ]);
    const refused = sentences.filter((sentence) => String(sentence).includes('10.0.2.2'));
    for (const sentence of refused)
      assert.match(adviceFor(String(sentence)) ?? '', /^a matter of the moment/);
  });

  test('that had a connection is not connected again, and has given its port back', () => {
    assert.deepEqual(withoutConnection(ends, { inet_num: 0 }), {
      sourceAddress: ends.sourceAddress,
      sourcePort: 0,
      destinationAddress: new Uint8Array(4),
      destinationPort: 0,
    });
    assert.equal(withoutConnection(ends, { inet_num: 40000 }).sourcePort, 40000);
  });

  test('reads as ended after its peer has ended, not after an error', () => {
    const CONNECTING = 2;
    const CONNECTED = 3;
    const closed = { state: tcpState.close, sk_shutdown: 3, sk_err: 0 };
    assert.equal(tcpShutdown(closed, { state: CONNECTED }), 3);
    assert.equal(tcpShutdown({ ...closed, sk_err: 104 }, { state: CONNECTED }), 0);
    assert.equal(tcpShutdown(closed, { state: CONNECTING }), 0);
    assert.equal(tcpShutdown({ ...closed, state: tcpState.listen }, { state: CONNECTED }), 0);
  });

  test('sends through no interface of its choice where the kernel keeps the one that it was reached through', () => {
    const accepted = [
      { uc_index: 0, mc_index: 2 },
      { ucast_oif: 0, mcast_oif: 2 },
    ] as const;
    assert.deepEqual(chosenInterfaces(true, ...accepted), []);
    assert.deepEqual(chosenInterfaces(false, ...accepted), [2, 2]);
    const chosen = [
      { uc_index: 3, mc_index: 2 },
      { ucast_oif: 4, mcast_oif: 2 },
    ] as const;
    assert.deepEqual(chosenInterfaces(true, ...chosen), [3, 4]);
  });
});

for (const release of releases) {
  suite(`connections of ${release}`, () => {
    test('that were complete and not accepted are lost, and counted', () => {
      const { kinds } = truthOf(release);
      const fixture = openFixture(release);
      const [listener = 0n] = connectedOf(fixture, kinds.tcp, tcpState.listen);
      const backlog = listener + BigInt(fixture.bind(sockStruct).offsetOf('sk_ack_backlog'));
      const patch = { physical: fixture.memory.translate(backlog), bytes: Buffer.from([3, 0, 0, 0]) };
      const kernel = openPatched(release, [patch]);
      const { groups } = captureProcesses(kernel, { roots: [kinds.tcp], includeDescendants: false });
      const notes = groups.flatMap(({ processes }) => processes.flatMap(({ findings }) => findings.notes));
      const lost = notes.filter((note) => note.endsWith('that waited to be accepted are lost'));
      assert.deepEqual(
        lost.map((note) => note.replace(/to \S+ that/, 'to X that')),
        ['3 connections to X that waited to be accepted are lost'],
      );
    });
  });
}

test('a socket of MPTCP is refused by its name, with what can be done about it', () => {
  assert.equal(otherSocket(1, 132), 'an IP socket of type 1 and protocol 132');
  const reason = `has ${otherSocket(1, 262)} (fd 3)`;
  assert.match(reason, /^has a socket of MPTCP/);
  assert.match(adviceFor(reason) ?? '', /net\.mptcp\.enabled=0/);
});
