import assert from 'node:assert/strict';
import { test } from 'node:test';
import { showEndpoint, showIpv6 } from '../../src/linux/inet.ts';

/** An IPv6 address of eight groups. */
function address(...groups: number[]): Uint8Array {
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
}

test('an IPv4 address is shown as one, also where an IPv6 socket has it', () => {
  assert.equal(showEndpoint(Uint8Array.of(10, 0, 2, 2), 5432), '10.0.2.2:5432');
  assert.equal(showEndpoint(address(0, 0, 0, 0, 0, 0xffff, 0x0a00, 0x0202), 5432), '10.0.2.2:5432');
  assert.equal(showEndpoint(address(0, 0, 0, 0, 0, 0xfffe, 0x0a00, 0x0202), 1), '[::fffe:a00:202]:1');
  assert.equal(showEndpoint(address(0, 0, 0, 0, 0, 0, 0, 1), 80), '[::1]:80');
});

test('IPv6 addresses have the form of RFC 5952', () => {
  const shown: [string, number[]][] = [
    ['::', [0, 0, 0, 0, 0, 0, 0, 0]],
    ['2001:db8::', [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0]],
    ['2001:db8::1:0:0:1', [0x2001, 0xdb8, 0, 0, 1, 0, 0, 1]],
    ['2001:0:0:1::1', [0x2001, 0, 0, 1, 0, 0, 0, 1]],
    ['2001:db8:0:1:1:1:1:1', [0x2001, 0xdb8, 0, 1, 1, 1, 1, 1]],
    ['0:1:1:1:1:1:1:1', [0, 1, 1, 1, 1, 1, 1, 1]],
    ['fe80::aaaa:10', [0xfe80, 0, 0, 0, 0, 0, 0xaaaa, 0x10]],
  ];
  for (const [text, groups] of shown) assert.equal(showIpv6(address(...groups)), text);
});
