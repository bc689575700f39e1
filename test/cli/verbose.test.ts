import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { dumpPath } from '../vmcore/fixtures.ts';

const main = join(import.meta.dirname, '../../src/cli/main.ts');

function run(...args: string[]) {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });
}

describe('--verbose', () => {
  const dump = dumpPath('debian13');

  it('says each step and how long it took, on standard error', () => {
    const quiet = run('inspect', dump, 'ps');
    assert.equal(quiet.stderr, '');
    const { status, stdout, stderr } = run('inspect', dump, 'ps', '--verbose');
    assert.deepEqual([status, stdout], [0, quiet.stdout]);
    const steps = [...stderr.matchAll(/^otherworld: +\d+\.\d\d s {2}(.*)$/gm)].map(([, what]) => what);
    assert.deepEqual(steps, [`opening ${dump}`, 'reading for ps', 'showing ps', 'in all']);
  });

  it('says of a command that fails at which step, wherever it stands, and shows no stack trace', () => {
    const { status, stderr } = run('--verbose', 'inspect', '/nowhere');
    assert.equal(status, 1);
    assert.match(
      stderr,
      /^otherworld: \/nowhere: cannot be opened: no such file\notherworld: +\S+ s {2}opening/,
    );
    assert.doesNotMatch(stderr, /^ +at /m);
  });

  it('is in the help of each command, with --debug', () => {
    assert.match(run('lab', 'up', '--help').stdout, /^Global Options:\n.*--debug .*--verbose /ms);
  });
});
