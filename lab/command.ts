import { type SpawnOptions, spawn } from 'node:child_process';
import { LabError } from './error.ts';

/** How a command ended; `status` is 137 when a signal ended it, 124 when its time was up. */
export interface CommandResult {
  status: number;
  stdout: string;
  stderr: string;
}

/** What `spawn` takes, and how a run may end early. */
export interface RunOptions extends SpawnOptions {
  /** Given to the command as standard input. */
  input?: string | Buffer;
  /** Kills the command after this time; its status is then 124. */
  timeoutSeconds?: number;
  /** Kills the command once it has printed this. */
  stopWhen?: RegExp;
}

/**
 * Runs a command to its end and keeps what it printed.
 * @throws LabError when it cannot be started at all.
 */
export function runCommand(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<CommandResult> {
  const { input, timeoutSeconds, stopWhen, ...spawnOptions } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...spawnOptions, stdio: ['pipe', 'pipe', 'pipe'] });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk));
    const watch = (): void => {
      if (stopWhen?.test(Buffer.concat([...stdout, ...stderr]).toString('utf8'))) child.kill('SIGKILL');
    };
    child.stdout?.on('data', watch);
    child.stderr?.on('data', watch);
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
    let timedOut = false;
    const timer = timeoutSeconds
      ? setTimeout(() => {
          timedOut = true;
          child.kill('SIGKILL');
        }, timeoutSeconds * 1000)
      : undefined;
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(new LabError(`cannot run ${command}: ${error.message}`));
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({
        status: timedOut ? 124 : (code ?? 137),
        stdout: Buffer.concat(stdout).toString('utf8'),
        stderr: Buffer.concat(stderr).toString('utf8'),
      });
    });
  });
}

/** As `runCommand`, but a failing command is an error that carries the end of what it printed. */
export async function runChecked(
  command: string,
  args: readonly string[],
  options: RunOptions & { what?: string } = {},
): Promise<CommandResult> {
  const { what, ...rest } = options;
  const result = await runCommand(command, args, rest);
  if (result.status !== 0) {
    const tail = `${result.stdout}${result.stderr}`.trimEnd().split('\n').slice(-15).join('\n');
    throw new LabError(`${what ?? command} failed with exit status ${result.status}:\n${tail}`);
  }
  return result;
}
