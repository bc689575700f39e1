import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { preparePreResume } from '../../../src/criu/restore/pre-resume.ts';

describe('the step before processes run', () => {
  let directory = '';
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'otherworld-pre-resume-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  /** Starts the action script as CRIU does. */
  function start(options: readonly string[], action: string) {
    const child = spawn(options[1] ?? '', { env: { ...process.env, CRTOOLS_SCRIPT_ACTION: action } });
    return { child, end: new Promise<number | null>((resolve) => child.on('exit', resolve)) };
  }

  it('is done while CRIU waits, which goes on then', async () => {
    const asked: (number | string)[] = [];
    const step = preparePreResume(directory, {
      begin: () => asked.push('begin') > 0,
      hold: (waiting) => asked.push(...waiting) > 0,
    });
    assert.equal(await start(step.options, 'post-restore').end, 0);
    assert.deepEqual(asked, []);
    assert.equal(await start(step.options, 'pre-restore').end, 0);
    assert.deepEqual(asked.splice(0), ['begin']);
    const { child, end } = start(step.options, 'pre-resume');
    assert.equal(await end, 0);
    assert.deepEqual(asked, [child.pid, process.pid]);
    assert.ok(step.finish());
  });

  it('is waited for by CRIU without an end if nobody is there to do it', async () => {
    const asked = Promise.withResolvers<void>();
    const hold = (): boolean => {
      asked.resolve();
      return false;
    };
    const step = preparePreResume(directory, { begin: () => true, hold });
    const { child, end } = start(step.options, 'pre-resume');
    await asked.promise;
    // As at the end of the program that was asked: nobody has the other ends open any more.
    step.finish();
    const state = (): string =>
      readFileSync(`/proc/${child.pid}/status`, 'latin1').match(/^State:\t(.)/m)?.[1] ?? '';
    while (child.exitCode === null && state() !== 'T') await sleep(5);
    assert.equal(child.exitCode, null);
    child.kill('SIGKILL');
    assert.equal(await end, null);
  });
});
