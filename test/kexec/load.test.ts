import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { KEXEC_ON_CRASH, kexecLoad } from '../../src/kexec/load.ts';
import type { Segment } from '../../src/kexec/segments.ts';

const within = { start: 0x100000, end: 0x200000 };

function segment(name: string, address: number, memoryBytes = 4096, bytes = 10): Segment {
  return { name, address, memoryBytes, bytes: Buffer.alloc(bytes) };
}

/** None of these gets as far as the kernel. */
suite('an image that is not fit to be loaded', () => {
  const entry = 0x110000;
  const kernel = segment('kernel', entry);
  const cases: readonly [string, readonly Segment[], RegExp][] = [
    ['has no segments', [], /would only unload: use kexecUnload/],
    [
      'has more segments than the kernel takes',
      Array.from({ length: 17 }, (_, i) => segment(`s${i}`, entry + i * 4096)),
      /has 17 segments, and the kernel takes 16/,
    ],
    [
      'has a segment in the middle of a page',
      [segment('a', 0x110800)],
      /a is at 0x110800 .* multiples of 4096/,
    ],
    ['has memory of half a page', [segment('a', entry, 0x1800)], /with 6144 bytes of memory/],
    ['has a segment without memory', [segment('a', entry, 0, 0)], /with 0 bytes of memory/],
    [
      'has more bytes than memory',
      [segment('a', entry, 4096, 4097)],
      /a has 4097 bytes for 4096 bytes of memory/,
    ],
    [
      'has segments that overlap',
      [segment('a', entry, 8192), segment('b', entry + 4096)],
      /a \(0x110000-0x111fff\) and b \(0x111000-0x111fff\) overlap/,
    ],
    [
      'leaves its reservation',
      [kernel, segment('a', 0x1ff000, 8192)],
      /a \(0x1ff000-0x200fff\) lies outside 0x100000-0x1fffff/,
    ],
    ['is entered where nothing is', [segment('a', 0x120000)], /the entry 0x110000 lies in no segment/],
  ];
  for (const [what, segments, message] of cases)
    test(what, () => {
      assert.throws(() => kexecLoad({ entry, segments, flags: KEXEC_ON_CRASH, within }), {
        name: 'KexecError',
        message,
      });
    });
});
