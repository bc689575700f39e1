import { readFileSync } from 'node:fs';
import { type Armed, armedSchema } from '../config/manifest.ts';
import { ARMED_PATH, CRASH_WORLD_PARAMETER } from '../config/paths.ts';
import { splitCommandLine } from './command-line.ts';

/** What the last `arm` of this boot loaded; undefined if it was not us, or nobody. */
export function readArmed(path: string = ARMED_PATH): Armed | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
  return armedSchema.parse(JSON.parse(text));
}

/** Whether the running kernel is a crash kernel of ours. */
export function isCrashWorld(): boolean {
  return splitCommandLine(readFileSync('/proc/cmdline', 'utf8')).includes(CRASH_WORLD_PARAMETER);
}
