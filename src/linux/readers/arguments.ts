import type { Mm } from '../mm-types.ts';
import type { UserMemory } from './user-memory.ts';

/**
 * The arguments of a process as they are in its memory now, each ended by a zero, as /proc/PID/cmdline shows
 * them (get_mm_cmdline, fs/proc/base.c): a title that was written over them (setproctitle) has overwritten
 * the last zero, and may go on into the environment behind them.
 * @param most bytes
 * @returns undefined if there are none, or the dump does not have them
 */
export function readArguments(
  memory: Pick<UserMemory, 'read'>,
  { arg_start, arg_end, env_start, env_end }: Pick<Mm, 'arg_start' | 'arg_end' | 'env_start' | 'env_end'>,
  most: number,
): Buffer | undefined {
  const bytes = (start: number, length: number): Buffer | undefined => {
    const read = length > 0 ? memory.read(BigInt(start), length) : undefined;
    return read?.kind === 'bytes' ? read.bytes : undefined;
  };
  const own = arg_end - arg_start;
  const isTitle = own > 0 && (bytes(arg_end - 1, 1)?.[0] ?? 0) !== 0;
  if (isTitle && env_start === arg_end && env_end > env_start) {
    const title = bytes(arg_start, Math.min(env_end - arg_start, most));
    if (title !== undefined) return title.includes(0) ? title.subarray(0, title.indexOf(0)) : title;
  }
  return bytes(arg_start, Math.min(own, most));
}
