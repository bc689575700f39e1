import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { searchOf } from '../search.ts';
import { dumpBytes, openFixture, releases, scratch } from './fixtures.ts';
import type { FuzzAnswer, FuzzQuestion } from './fuzz-reader.ts';
import { silentWholeViews, viewsOf } from './views.ts';

const SEARCH = searchOf(60);
/** Of processor time for one dump. */
const LIMIT_SECONDS = 10;
/** After which a reader is taken for one that never ends, on a machine however busy. */
const HUNG_SECONDS = 120;
const LIMIT_RSS_MIB = 700;

type Mutation =
  | { readonly kind: 'bytes'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: 'zero'; readonly at: number; readonly length: number }
  | { readonly kind: 'bit'; readonly at: number; readonly bit: number }
  | { readonly kind: 'word' | 'page'; readonly at: number; readonly from: number }
  | { readonly kind: 'storm'; readonly seed: number; readonly words: number };

/**
 * What can have become of a dump: bytes, bits, words that point elsewhere in it, one or many, pages in each
 * other's place.
 */
function mutations(length: number): fc.Arbitrary<Mutation> {
  const at = fc.nat(length - 1);
  // The headers and notes are a small part of the file, and the part where most can go wrong.
  const place = fc.oneof({ weight: 3, arbitrary: at }, { weight: 1, arbitrary: fc.nat(4 * PAGE_SIZE) });
  const word = fc.nat(Math.floor(length / 8) - 1).map((index) => index * 8);
  const page = fc.nat(Math.floor(length / PAGE_SIZE) - 1).map((index) => index * PAGE_SIZE);
  return fc.oneof(
    fc.record({
      kind: fc.constant('bytes' as const),
      at: place,
      bytes: fc.uint8Array({ minLength: 1, maxLength: 16 }),
    }),
    fc.record({ kind: fc.constant('bit' as const), at: place, bit: fc.nat(7) }),
    fc.record({ kind: fc.constant('zero' as const), at: place, length: fc.nat(PAGE_SIZE * 4) }),
    fc.record({ kind: fc.constant('word' as const), at: word, from: word }),
    fc.record({ kind: fc.constant('page' as const), at: page, from: page }),
    fc.record({ kind: fc.constant('storm' as const), seed: fc.nat(), words: fc.nat(3000) }),
  );
}

function apply(copy: Buffer, mutation: Mutation): void {
  switch (mutation.kind) {
    case 'bytes':
      copy.set(mutation.bytes.subarray(0, copy.length - mutation.at), mutation.at);
      return;
    case 'bit':
      copy[mutation.at] = (copy[mutation.at] ?? 0) ^ (1 << mutation.bit);
      return;
    case 'zero':
      copy.fill(0, mutation.at, Math.min(copy.length, mutation.at + mutation.length));
      return;
    case 'storm':
      storm(copy, mutation.seed, mutation.words);
      return;
    case 'word':
    case 'page': {
      const length = mutation.kind === 'word' ? 8 : PAGE_SIZE;
      copy.copyWithin(mutation.at, mutation.from, mutation.from + length);
    }
  }
}

/**
 * Puts words of the dump in many other places of it: pointers that are valid, but not there. The headers stay
 * whole.
 */
function storm(copy: Buffer, seed: number, words: number): void {
  let state = seed >>> 0;
  const next = (limit: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  const first = 4 * PAGE_SIZE;
  const count = Math.floor((copy.length - first) / 8);
  for (let i = 0; i < words; i++) {
    const from = first + next(count) * 8;
    copy.copyWithin(first + next(count) * 8, from, from + 8);
  }
}

/**
 * A process that reads dumps, so that one which kills or hangs its reader fails the test instead of ending
 * it.
 */
class Reader {
  #child: ChildProcess | undefined;

  async read(question: FuzzQuestion): Promise<FuzzAnswer> {
    this.#child ??= fork(join(import.meta.dirname, 'fuzz-reader.ts'));
    const child = this.#child;
    return await new Promise((resolve, reject) => {
      const settle = (end: () => void): void => {
        clearTimeout(timer);
        child.removeAllListeners();
        end();
      };
      const fail = (message: string): void => {
        settle(() => reject(new Error(message)));
        this.close();
      };
      const timer = setTimeout(() => fail(`did not end within ${HUNG_SECONDS} s`), HUNG_SECONDS * 1000);
      child.once('message', (answer: FuzzAnswer) => settle(() => resolve(answer)));
      child.once('exit', (code, signal) => fail(`the reader died (${signal ?? code})`));
      child.send(question);
    });
  }

  close(): void {
    this.#child?.kill('SIGKILL');
    this.#child = undefined;
  }
}

describe('a mutated dump', () => {
  const reader = new Reader();
  after(() => reader.close());

  for (const release of releases) {
    it(`of ${release} is read or refused, in bounded time and memory`, async () => {
      const whole = dumpBytes(release);
      const path = scratch(`fuzz-${release}`);
      // One file and one copy for all runs: the system takes longer to make room for 10 MB than to fill it.
      const file = openSync(path, 'w');
      const copy = Buffer.alloc(whole.length);
      const healthy = openFixture(release);
      const pids = listProcesses(healthy).rows.flatMap(({ pid, hasMemory }) => (hasMemory ? [pid] : []));
      const views = viewsOf(healthy, pids);
      let [refused, read] = [0, 0];
      await fc.assert(
        fc.asyncProperty(
          fc.array(mutations(whole.length), { minLength: 1, maxLength: 40 }),
          fc.option(fc.nat(whole.length), { freq: 10 }),
          async (changes, length) => {
            copy.set(whole);
            for (const change of changes) apply(copy, change);
            writeSync(file, copy, 0, length ?? copy.length, 0);
            ftruncateSync(file, length ?? copy.length);
            const answer = await reader.read({ path, pids });
            assert.equal(answer.fault, undefined);
            assert.deepEqual(silentWholeViews(views, answer.views ?? {}), []);
            assert.ok(
              answer.processorSeconds < LIMIT_SECONDS,
              `${answer.processorSeconds} s of processor time`,
            );
            assert.ok(answer.rssMib < LIMIT_RSS_MIB, `${answer.rssMib} MiB`);
            refused += answer.refused;
            read += answer.read;
          },
        ),
        SEARCH,
      );
      closeSync(file);
      assert.ok(refused > 0 && read > 0, `${read} looks found something, ${refused} were refused`);
    });
  }
});
