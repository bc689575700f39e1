// Runs several files of tests in one process: `node lab/unit-shard.ts FILE...`. To start a process and to
// load what tests share takes longer than most of them do. If OTHERWORLD_TEST_CLAIMS names a directory, only
// the first file is this process's own. It shares the others with processes that have the same ones behind
// theirs: each takes the next that no other has taken.
import { closeSync, openSync } from 'node:fs';
import { join, relative } from 'node:path';
import { after, suite, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { codeOf } from '../src/system/thrown.ts';
import { repositoryRoot } from './node-tree.ts';

const claims = process.env.OTHERWORLD_TEST_CLAIMS;

/** True for the first process that asks. */
function claim(file: number): boolean {
  if (claims === undefined) return true;
  try {
    closeSync(openSync(join(claims, String(file)), 'wx'));
    return true;
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    return false;
  }
}

/** The longest takes seconds, and minutes on a busy machine: one that waits for ever fails by its name. */
const LONGEST_FILE_MILLISECONDS = 600_000;

/**
 * Ends when the file's tests have: they are a suite, whose `after` says so. A suite that fails by itself is
 * not counted, a test is.
 */
async function runFile(file: string): Promise<void> {
  await new Promise<void>((ended) => {
    suite(relative(repositoryRoot, file), { timeout: LONGEST_FILE_MILLISECONDS }, async () => {
      after(() => ended());
      setTimeout(ended, LONGEST_FILE_MILLISECONDS + 1000).unref();
      try {
        await import(pathToFileURL(file).href);
      } catch (error) {
        test('can be loaded', () => {
          throw error;
        });
      }
    });
  });
}

for (const [i, file] of process.argv.slice(2).entries()) if (i === 0 || claim(i)) await runFile(file);

// What a test that has failed so has left behind must not hold up the others' results.
setTimeout(() => process.exit(1), 60_000).unref();
