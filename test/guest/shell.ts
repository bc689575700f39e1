import { setTimeout as sleep } from 'node:timers/promises';
import { execCaptured } from '../../lab/channel.ts';
import { consoleTail } from '../../lab/console-log.ts';
import { guestPid } from '../../lab/guest.ts';
import { guestClock } from '../../lab/guest-time.ts';

/** One argument for a shell, as it is. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/**
 * Runs a script in a guest.
 * @returns its output without the last newline
 * @throws if it fails, with the end of the console
 */
export function shell(name: string, script: string, timeoutSeconds: number): Promise<string> {
  return run(name, script, ['sh', '-c', script], timeoutSeconds);
}

async function run(
  name: string,
  script: string,
  command: readonly string[],
  timeoutSeconds: number,
): Promise<string> {
  const { status, stdout, stderr } = await execCaptured(name, command, { timeoutSeconds });
  if (status !== 0) {
    throw new Error(
      `in guest ${name}, status ${status}: ${script}\n${stdout}${stderr}\nconsole:\n${consoleTail(name, 5)}`,
    );
  }
  return stdout.replace(/\n$/, '');
}

/** Before the host looks whether the time is up. */
const TRIES = 20;

/**
 * Tries the script $1 again and again in the guest itself: a command from outside costs an emulated one more
 * than most scripts do. The last try says why it failed.
 */
const TRY = `tries=1
until said=$(sh -c "$1" 2>/dev/null); do
  [ $tries -lt ${TRIES} ] || exec sh -c "$1"
  tries=$((tries + 1))
  sleep 0.5
done
printf '%s\\n' "$said"`;

/**
 * Runs a script until it succeeds, for about `seconds` of the guest's own time.
 * @throws what its last try said
 */
export async function retry(name: string, script: string, seconds: number): Promise<string> {
  const elapsed = guestClock(guestPid(name) ?? 0);
  for (;;) {
    try {
      return await run(name, script, ['sh', '-c', TRY, 'sh', script], 120);
    } catch (error) {
      if (elapsed() > seconds) throw error;
      await sleep(1000);
    }
  }
}
