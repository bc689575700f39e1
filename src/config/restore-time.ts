/** systemd ends the unit that restores into sandboxes after so many minutes. */
export const SANDBOX_MINUTES = 15;
/**
 * How long its program may take at all. It has to end what is held by itself, which resets the connections;
 * at the unit's time limit the processes are killed, and their peers see an ordinary end.
 */
export const SANDBOX_PROGRAM_MINUTES = SANDBOX_MINUTES - 2;

/** What most disks write and read. */
export const COMMON_BYTES_PER_SECOND = 100 * 2 ** 20;

/** Of all the time: for what follows the last restore. */
const KEPT_SHARE = 0.05;

/**
 * Seconds that are left for restores.
 * @param minutes after which the program is ended, from its start
 * @param passedSeconds since its start
 */
export function secondsForRestores(minutes: number, passedSeconds: number): number {
  return minutes * 60 * (1 - KEPT_SHARE) - passedSeconds;
}
