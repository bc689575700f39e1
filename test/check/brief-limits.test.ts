import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isQuickToCheck } from '../../src/check/brief-limits.ts';
import { scratch } from '../vmcore/fixtures.ts';

interface MadeProcess {
  readonly pid: number;
  readonly parent: number;
  readonly rss?: number;
  readonly swap?: number;
}

/** A directory like /proc; sizes in KiB. */
function procOf(name: string, processes: readonly MadeProcess[]): string {
  const proc = scratch(name);
  for (const { pid, parent, rss = 1000, swap = 0 } of processes) {
    const directory = join(proc, String(pid));
    mkdirSync(directory, { recursive: true });
    const fields = Array.from({ length: 20 }, () => 0);
    writeFileSync(join(directory, 'stat'), `${pid} (web) S ${parent} ${fields.join(' ')}\n`);
    writeFileSync(join(directory, 'status'), `Name:\tweb\nVmRSS:\t${rss} kB\nVmSwap:\t${swap} kB\n`);
  }
  return proc;
}

const GIB = 1 << 20;

test('few and small processes are looked at by the way', () => {
  const proc = procOf('small', [
    { pid: 10, parent: 1 },
    { pid: 11, parent: 1, rss: 8 * GIB },
  ]);
  assert.ok(isQuickToCheck([10], proc));
  assert.ok(isQuickToCheck([99], proc));
});

test('large memory is left to a check, also that of descendants and what is in swap', () => {
  const proc = procOf('large', [
    { pid: 10, parent: 1 },
    { pid: 11, parent: 10, rss: (3 * GIB) / 2, swap: GIB },
  ]);
  assert.equal(isQuickToCheck([10], proc), false);
});

test('many processes are left to a check, also as descendants of one', () => {
  const children = Array.from({ length: 200 }, (_, i) => ({ pid: 100 + i, parent: 10 }));
  const proc = procOf('many', [{ pid: 10, parent: 1 }, ...children]);
  assert.equal(isQuickToCheck([10], proc), false);
  assert.ok(
    isQuickToCheck(
      children.slice(1).map(({ pid }) => pid),
      proc,
    ),
  );
});
