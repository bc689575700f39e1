// Runs several files of tests in one process: `node lab/unit-shard.ts FILE...`. To start a process and to
// load what tests share takes longer than most of them do.
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

for (const file of process.argv.slice(2)) {
  try {
    await import(pathToFileURL(file).href);
  } catch (error) {
    test(file, () => {
      throw error;
    });
  }
}
