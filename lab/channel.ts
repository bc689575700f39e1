import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { guestKey } from './channel-key.ts';
import { type CommandResult, runCommand } from './command.ts';
import { LabError, WrongUse } from './error.ts';
import { guestPaths, guestPid, readRunningGuest } from './guest.ts';
import { guestClock } from './guest-time.ts';

/** Status that ssh itself ends with when it cannot connect. */
const SSH_FAILED = 255;

/** Status of a command that was ended because its time was up, as timeout(1) has it. */
const TIMED_OUT = 124;

/** `--` ends ssh's own options, so that a command may begin with '-'. */
const destination = ['--', 'root@127.0.0.1'];

/** Quotes one argument for the guest's shell, so that it arrives exactly as given. */
export function quoteArgument(argument: string): string {
  return /^[A-Za-z0-9_/.,:=@%+-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", `'\\''`)}'`;
}

/**
 * Options of ssh and scp that lead to a guest. The first connection stays open and is shared by later ones.
 */
async function sshOptions(name: string): Promise<string[]> {
  const { sshPort } = readRunningGuest(name);
  const { privateKeyPath } = await guestKey();
  const options = {
    Port: String(sshPort),
    IdentityFile: privateKeyPath,
    IdentitiesOnly: 'yes',
    BatchMode: 'yes',
    StrictHostKeyChecking: 'no',
    UserKnownHostsFile: '/dev/null',
    GlobalKnownHostsFile: '/dev/null',
    LogLevel: 'ERROR',
    Compression: 'no',
    ForwardX11: 'no',
    ConnectTimeout: '60',
    ServerAliveInterval: '15',
    ServerAliveCountMax: '20',
    Ciphers: 'aes128-ctr,chacha20-poly1305@openssh.com',
    KexAlgorithms: 'curve25519-sha256',
    ControlMaster: 'auto',
    ControlPath: guestPaths(name).control,
    ControlPersist: '600',
  };
  return ['-F', '/dev/null', ...Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`])];
}

/** Longest time for a command that takes no time in a guest that works, on however busy a host. */
export const LOOK_SECONDS = 300;

/** How a command in a guest is to be run. */
export interface ExecOptions {
  /** Ends the command with status 124 after this many seconds. */
  timeoutSeconds?: number;
  /** Gives the command a terminal. */
  terminal?: boolean;
}

/**
 * Runs a command in the guest with this process's own standard input, output and error.
 * @returns its exit status; 124 when the time was up
 * @throws LabError if the guest does not answer
 */
export async function execInherited(
  name: string,
  command: readonly string[],
  options: ExecOptions = {},
): Promise<number> {
  const args = [...(await sshOptions(name)), ...(options.terminal ? ['-tt'] : []), ...destination];
  const child = spawn('ssh', [...args, remoteCommand(command, options)], { stdio: 'inherit' });
  const { status } = await waitFor(child, name, options);
  return status;
}

/**
 * Runs a command in the guest and keeps its output.
 * @throws LabError if the guest does not answer
 */
export async function execCaptured(
  name: string,
  command: readonly string[],
  options: ExecOptions & { input?: string | Buffer } = {},
): Promise<CommandResult> {
  const args = [...(await sshOptions(name)), ...destination, remoteCommand(command, options)];
  const result = await runCommand('ssh', args, {
    input: options.input,
    timeoutSeconds: hostTimeout(options),
  });
  if (result.status === SSH_FAILED) await explainFailure(name, result.stderr);
  return result;
}

/**
 * As `execCaptured`, for what must succeed: a command that fails, or does not end in time, is an error that
 * says so.
 * @returns what it printed
 * @throws LabError
 */
export async function execChecked(
  name: string,
  command: readonly string[],
  options: ExecOptions & { input?: string | Buffer } = {},
): Promise<string> {
  const { status, stdout, stderr } = await execCaptured(name, command, options);
  if (status === 0) return stdout;
  const what = command.join(' ').slice(0, 80);
  if (status === TIMED_OUT) {
    throw new LabError(
      `in guest ${name}: '${what}' did not end within ${options.timeoutSeconds} s; is the host busy?`,
    );
  }
  throw new LabError(`in guest ${name}: ${stderr.trim() || `'${what}' ended with status ${status}`}`);
}

/** `timeout` in the guest ends the command there; the host's own limit covers a guest that hangs. */
function remoteCommand(command: readonly string[], options: ExecOptions): string {
  const prefix = options.timeoutSeconds ? ['timeout', '-k', '5', String(options.timeoutSeconds)] : [];
  return [...prefix, ...command].map(quoteArgument).join(' ');
}

function hostTimeout(options: ExecOptions): number | undefined {
  return options.timeoutSeconds === undefined ? undefined : options.timeoutSeconds + 15;
}

async function waitFor(
  child: ReturnType<typeof spawn>,
  name: string,
  options: ExecOptions,
): Promise<{ status: number }> {
  const limit = hostTimeout(options);
  let timedOut = false;
  const timer =
    limit === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true;
          child.kill('SIGKILL');
        }, limit * 1000);
  const status = await new Promise<number>((resolve, reject) => {
    child.on('error', (error) => reject(new LabError(`cannot run ssh: ${error.message}`)));
    child.on('close', (code) => resolve(code ?? 137));
  });
  clearTimeout(timer);
  if (timedOut) return { status: TIMED_OUT };
  if (status === SSH_FAILED) await explainFailure(name, '');
  return { status };
}

/** ssh's 255 may also be the command's own status: the guest's answer to a new connection tells. */
async function explainFailure(name: string, stderr: string): Promise<void> {
  if (guestPid(name) !== undefined && (await answers(name, 5))) {
    if (stderr.trim() === '' || !/^(ssh|Connection|kex|mux|Permission|channel)/m.test(stderr)) return;
  }
  throw new LabError(
    `guest ${name} does not answer${stderr.trim() ? ` (${stderr.trim().split('\n').at(-1)})` : ''}; see 'lab log ${name}'`,
  );
}

/**
 * Copies files or directories between host and guest; `NAME:` marks the guest's side.
 * @throws WrongUse unless exactly one side is in the guest; LabError if the copy fails
 */
export async function copyFiles(name: string, source: string, destination: string): Promise<void> {
  const mark = `${name}:`;
  const fromGuest = source.startsWith(mark);
  if (fromGuest === destination.startsWith(mark)) {
    throw new WrongUse(`exactly one side of a copy is in the guest: ${name}:PATH`);
  }
  const remote = (path: string): string => `root@127.0.0.1:${path.slice(mark.length) || '.'}`;
  const from = fromGuest ? remote(source) : source;
  const to = fromGuest ? destination : remote(destination);
  const result = await runCommand('scp', ['-r', '-p', ...(await sshOptions(name)), from, to]);
  if (result.status !== 0)
    throw new LabError(`copy failed: ${result.stderr.trim() || `status ${result.status}`}`);
}

/** Closes the shared connection; needed when the kernel at its other end has died. */
export async function dropConnection(name: string): Promise<void> {
  await runCommand('ssh', [
    '-F',
    '/dev/null',
    '-o',
    `ControlPath=${guestPaths(name).control}`,
    '-O',
    'exit',
    'x',
  ]);
}

/**
 * Seconds of the first tries, and the share of the time waited so far that later ones get: what was sent
 * before the guest listened is lost, and a guest on a busy host may need long to start what greets.
 */
const SHORTEST_TRY = 3;
const TRY_SHARE = 0.25;

/**
 * Waits until the guest's sshd greets.
 * @param seconds of the guest's own time
 * @param isHopeless tells that it never will
 * @returns false when the time is up, QEMU has ended or it is hopeless
 */
export async function answers(
  name: string,
  seconds: number,
  isHopeless: () => boolean = () => false,
): Promise<boolean> {
  const { sshPort } = readRunningGuest(name);
  const elapsed = guestClock(guestPid(name) ?? 0);
  while (elapsed() < seconds) {
    if (guestPid(name) === undefined || isHopeless()) return false;
    if (await greets(sshPort, Math.max(SHORTEST_TRY, elapsed() * TRY_SHARE))) return true;
    await sleep(200);
  }
  return false;
}

/** QEMU accepts connections for a guest that is not there yet: only the greeting counts. */
function greets(port: number, seconds: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    const done = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(seconds * 1000, () => done(false));
    socket.on('data', (data) => done(data.toString('latin1').startsWith('SSH-')));
    socket.on('error', () => done(false));
    socket.on('close', () => done(false));
  });
}
