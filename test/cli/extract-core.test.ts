import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Command } from 'commander';
import { registerExtract } from '../../src/cli/extract.ts';
import { dumpPath, scratch, truthOf } from '../vmcore/fixtures.ts';

const main = join(import.meta.dirname, '../../src/cli/main.ts');
const dump = dumpPath('debian13');
const { program, kinds } = truthOf('debian13');

function extract(...args: string[]) {
  return spawnSync(process.execPath, [main, 'extract', dump, ...args], { encoding: 'utf8' });
}

describe('the command otherworld extract --core', () => {
  it('ends with status 0 for a whole core, and says what is in it', () => {
    const { status, stdout, stderr } = extract('--pid', `${kinds.pid}`, '--core', scratch('whole'));
    assert.deepEqual([status, stderr], [0, '']);
    assert.match(
      stdout,
      /whole: guest-kinds \(pid \d+\), 4 threads, \d+ memory areas\n {2}\d+ pages of memory; /,
    );
  });

  it('ends with status 3 for a core that lacks something, and names that', () => {
    const path = scratch('part');
    const { status, stdout, stderr } = extract('--pid', `${program.pid}`, '--core', path, '--json');
    assert.equal(status, 3);
    const { pages, missing, threads } = JSON.parse(stdout);
    assert.deepEqual(missing, [`${pages.notInDump} pages are not in the dump`]);
    assert.equal(threads.length, 3);
    assert.equal(stderr, `otherworld: ${dump}: ${missing[0]}\notherworld: ${path} is incomplete\n`);
    assert.ok(existsSync(path));
  });

  it('ends with status 1 where there is nothing to write, and 2 where it is not said where to', async () => {
    const kthreadd = extract('--pid', '2', '--core', scratch('none'));
    assert.equal(kthreadd.status, 1);
    assert.match(kthreadd.stderr, /^otherworld: process 2 \(kthreadd\) is a kernel thread: .*\n$/);
    for (const args of [
      ['--pid', `${kinds.pid}`],
      ['--pid', '5', '--core', scratch('a'), '--out', scratch('b')],
    ]) {
      // In this process, which is faster.
      const program = new Command().exitOverride();
      registerExtract(program);
      const wrong = program.parseAsync(['extract', dump, ...args], { from: 'user' });
      await assert.rejects(wrong, { exitStatus: 2 }, args.join(' '));
    }
  });
});
