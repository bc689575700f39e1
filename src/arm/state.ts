import { readFileSync } from 'node:fs';
import { type Armed, armedSchema } from '../config/manifest.ts';
import { ARMED_PATH, CRASH_WORLD_PARAMETER } from '../config/paths.ts';
import { damageOf } from '../system/damage.ts';
import { StateError } from '../system/state-error.ts';
import { readStateFile } from '../system/state-file.ts';
import { splitCommandLine } from './command-line.ts';

/**
 * What the last `arm` of this boot loaded; undefined if it was not us, or nobody.
 * @throws StateError if the file that says so is damaged, or of another version
 */
export function readArmed(path: string = ARMED_PATH): Armed | undefined {
  const text = readStateFile(path);
  if (text === undefined) return undefined;
  try {
    return armedSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new StateError(`${path} is damaged (${damageOf(error)}): run otherworld arm, which writes it anew`);
  }
}

/** Whether the running kernel is a crash kernel of ours. */
export function isCrashWorld(): boolean {
  return splitCommandLine(readFileSync('/proc/cmdline', 'utf8')).includes(CRASH_WORLD_PARAMETER);
}
