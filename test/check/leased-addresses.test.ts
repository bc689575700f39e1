import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { leasedAddresses } from '../../src/check/leased-addresses.ts';
import { lookAt } from '../../src/check/look.ts';
import { inetSock } from '../../src/linux/inet.ts';
import { sockStruct } from '../../src/linux/sock.ts';
import type { LossKind } from '../../src/model/loss.ts';
import { roomOf } from '../../src/report/images-room.ts';
import { connectedOf } from '../capture/files/sockets/inet/connected.ts';
import { openFixture, openPatched, releases, truthOf } from '../vmcore/fixtures.ts';

const OUTPUT = JSON.stringify([
  { ifindex: 1, ifname: 'lo', addr_info: [{ family: 'inet', local: '127.0.0.1', prefixlen: 8 }] },
  {
    ifname: 'eth0',
    addr_info: [
      { family: 'inet', local: '10.0.2.15', dynamic: true, valid_life_time: 86_000 },
      { family: 'inet', local: '10.0.2.16', valid_life_time: 4_294_967_295 },
      { family: 'inet6', local: '2001:db8::5', dynamic: true, temporary: true },
    ],
  },
  {},
]);

test('addresses with a time limit are those that iproute2 calls dynamic', () => {
  assert.deepEqual(
    [...leasedAddresses(OUTPUT)],
    [
      ['10.0.2.15', 'an address with a time limit of eth0'],
      ['2001:db8::5', 'a temporary address of eth0'],
    ],
  );
  for (const nonsense of ['', '{}', '[{"addr_info": 7}]']) assert.equal(leasedAddresses(nonsense).size, 0);
});

for (const release of releases) {
  suite(`a check of a connection of ${release}`, () => {
    const { kinds } = truthOf(release);
    const fixture = openFixture(release);
    const Inet = fixture.bind(inetSock);
    const [one = 0n, other = 0n] = connectedOf(fixture, kinds.tcp);
    const address = (sk: bigint, member: 'saddr' | 'daddr') => ({
      physical: fixture.memory.translate(sk + BigInt(Inet.offsetOf(member))),
      bytes: Buffer.from([10, 0, 2, 15]),
    });
    const atWork = (sk: bigint) => ({
      physical: fixture.memory.translate(sk + BigInt(fixture.bind(sockStruct).offsetOf('owned'))),
      bytes: Buffer.of(1),
    });
    const notesWith = (leased: ReadonlyMap<string, string>, areLost = false): string[] => {
      const patches = [one, other].flatMap((sk) => [address(sk, 'saddr'), address(sk, 'daddr')]);
      const request = { roots: [kinds.tcp], includeDescendants: false, criu: undefined, hasStageZero: true };
      const kernel = openPatched(release, areLost ? [...patches, atWork(one), atWork(other)] : patches);
      const losses = (): ReadonlySet<LossKind> => new Set(areLost ? ['connections'] : []);
      const room = roomOf({ directory: '/', bytes: 2 ** 40, files: undefined, type: 0 });
      const look = lookAt(kernel, { ...request, leased, losses, room });
      assert.equal(look.get(kinds.tcp)?.losses.length, areLost ? 2 : 0);
      return (look.get(kinds.tcp)?.notes ?? []).filter((note) => note.includes('TCP connection from'));
    };

    test('says that it needs an address which the machine may not have again, and nothing of others', () => {
      assert.deepEqual(notesWith(leasedAddresses(OUTPUT)), [
        'has a TCP connection from 10.0.2.15, an address with a time limit of eth0: it goes on only if the machine has that address again',
      ]);
      assert.deepEqual(notesWith(new Map([['10.0.2.16', 'an address']])), []);
      assert.deepEqual(notesWith(leasedAddresses(OUTPUT), true), [], 'what is lost goes on nowhere');
    });
  });
}
