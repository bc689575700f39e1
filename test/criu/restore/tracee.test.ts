// What becomes of a process that is held when its holder ends.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, suite, test } from 'node:test';

const module = new URL('../../../src/criu/restore/tracee.ts', import.meta.url).href;
const SYS_GETPID = 39;

/** Holds a process, has it do a call, says so, does what is asked, says so, and waits for its own end. */
const holder = (pid: number, andThen: string): string => `
  const { Tracee } = await import(${JSON.stringify(module)});
  const tracee = new Tracee(${pid});
  if (tracee.call(${pid}, ${SYS_GETPID}) !== ${pid}) process.exit(1);
  ${andThen}
  process.stdout.write('held\\n');
  setInterval(() => undefined, 1000);
`;

const stateOf = (pid: number): string =>
  /\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.[1] ?? '';

// Its holder is no parent of it.
suite('a process that is held', { skip: process.getuid?.() !== 0 }, () => {
  let subject: ChildProcess;
  const pid = (): number => subject.pid ?? 0;

  beforeEach(async () => {
    subject = spawn('/bin/sleep', ['60'], { stdio: 'ignore' });
    await once(subject, 'spawn');
    while (!readFileSync(`/proc/${pid()}/stat`, 'latin1').includes('(sleep) S'))
      await new Promise((resolve) => setImmediate(resolve));
  });
  afterEach(async () => {
    if (subject.exitCode !== null || subject.signalCode !== null) return;
    const ended = once(subject, 'exit');
    subject.kill('SIGKILL');
    await ended;
  });

  /** Ends a holder as a time limit does. */
  const holdAndEnd = async (andThen: string): Promise<void> => {
    const code = holder(pid(), andThen);
    const stdio = ['ignore', 'pipe', 'inherit'] as const;
    const program = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: [...stdio] });
    const ended = once(program, 'exit');
    const said = program.stdout === null ? assert.fail() : once(program.stdout, 'data');
    const first = await Promise.race([said, ended]);
    assert.equal(String(first[0]), 'held\n');
    program.kill('SIGKILL');
    await ended;
  };

  test('does not go on in the middle of what it was made to do', async () => {
    const ended = once(subject, 'exit');
    await holdAndEnd('');
    assert.deepEqual(await ended, [null, 'SIGKILL']);
  });

  test('and was let go goes on whatever becomes of its holder', async () => {
    await holdAndEnd('tracee.release();');
    while (stateOf(pid()) === 'R') await new Promise((resolve) => setImmediate(resolve));
    assert.equal(stateOf(pid()), 'S');
    assert.match(readFileSync(`/proc/${pid()}/status`, 'latin1'), /^TracerPid:\t0$/m);
  });
});
