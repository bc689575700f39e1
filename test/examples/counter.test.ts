import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';

/** More than a thread has of stack. */
const sizeMib = 16;

interface Status {
  readonly pid: number;
  readonly errors: number;
  readonly wrongWords: number;
  readonly passes: number;
  readonly vectorChecks: number;
}

/** The status as soon as `wanted` holds; the last one seen after five seconds. */
async function statusWhen(path: string, wanted: (status: Status) => boolean): Promise<Status | undefined> {
  let status: Status | undefined;
  for (let i = 0; i < 50 && (status === undefined || !wanted(status)); i++) {
    await setTimeout(100);
    try {
      status = JSON.parse(readFileSync(path, 'utf8'));
    } catch {
      // Not written yet.
    }
  }
  return status;
}

/** Turns one bit over in the middle of the counter's pattern, as a page restored wrongly would. */
function flipOneBit(pid: number): void {
  const line = readFileSync(`/proc/${pid}/maps`, 'utf8')
    .split('\n')
    .map((text) =>
      text
        .split(/[- ]/)
        .slice(0, 2)
        .map((word) => Number.parseInt(word, 16)),
    )
    .find(([start = 0, end = 0]) => end - start >= sizeMib * 1048576);
  const address = (line?.[0] ?? 0) + (sizeMib * 1048576) / 2 + 12345;
  const memory = openSync(`/proc/${pid}/mem`, 'r+');
  const byte = Buffer.alloc(1);
  readSync(memory, byte, 0, 1, address);
  byte.writeUInt8(byte.readUInt8() ^ 0x10);
  writeSync(memory, byte, 0, 1, address);
  closeSync(memory);
}

test('the counter finds no error in its own memory, and every flipped bit', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-counter-'));
  const source = join(import.meta.dirname, '../../examples/counter');
  execFileSync('make', ['-s', '-C', source, `BUILD=${directory}`]);
  const status = join(directory, 'status');
  const options = ['--size', String(sizeMib), '--threads', '2', '--nap', '500', '--status', status];
  const counter = spawn(join(directory, 'counter'), options, { stdio: 'inherit' });
  try {
    const before = await statusWhen(status, ({ passes }) => passes >= 2);
    assert.ok(before !== undefined && before.passes >= 2 && before.vectorChecks > 0);
    assert.equal(before.errors, 0);
    flipOneBit(before.pid);
    const after = await statusWhen(status, ({ errors }) => errors > 0);
    assert.equal(after?.wrongWords, 1);
    assert.equal(after?.errors, 1);
  } finally {
    counter.kill('SIGKILL');
    rmSync(directory, { recursive: true });
  }
});
