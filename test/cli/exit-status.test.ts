import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { copyFiles } from '../../lab/channel.ts';
import { checkCpu, parseFault } from '../../lab/fault.ts';
import { guestPaths } from '../../lab/guest.ts';
import { parseRelease } from '../../lab/release.ts';

const MAIN = join(import.meta.dirname, '../../src/cli/main.ts');
const cache = mkdtempSync(join(tmpdir(), 'otherworld-status-'));
after(() => rmSync(cache, { recursive: true }));

/** How the command line ends, and what it says. */
async function run(...args: string[]): Promise<[number | null, string]> {
  const env = { ...process.env, XDG_CACHE_HOME: cache };
  const child = spawn(process.execPath, [MAIN, ...args], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (data) => {
    said += String(data);
  });
  const [status] = await once(child, 'close');
  return [status, said];
}

const wrong = { exitStatus: 2 };

suite('the exit status of the lab', () => {
  test('is 2 for a wrong command line, whichever word of it is wrong', async () => {
    assert.throws(() => parseRelease('sid'), wrong);
    assert.throws(() => parseFault('axe'), wrong);
    assert.throws(() => checkCpu('a', 'nmi', 1), wrong);
    assert.throws(() => guestPaths('a/b'), wrong);
    await assert.rejects(copyFiles('a', 'from', 'to'), wrong);
    await assert.rejects(copyFiles('a', 'a:from', 'a:to'), wrong);
  });

  const runs: [number, string[], RegExp][] = [
    [2, ['lab', 'up', 'a', '--memory', '99999999'], /--memory 99999999: this host has /],
    [2, ['lab', 'exec', 'a/b', '--', 'true'], /cannot be a guest's name/],
    [1, ['lab', 'down', 'nobody'], /no guest is called nobody/],
    [125, ['lab', 'exec', 'nobody', '--', 'true'], /no guest is called nobody/],
  ];
  for (const [expected, args, words] of runs)
    test(`is ${expected} of: ${args.join(' ')}`, async () => {
      const [status, said] = await run(...args);
      assert.match(said, words);
      assert.equal(status, expected);
    });
});
