import { join } from 'node:path';
import { loadManifest } from '../config/manifest.ts';
import { PAYLOAD_DIRECTORY } from '../config/paths.ts';
import { libcFunction } from '../system/libc.ts';
import { readProfile } from '../vmcore/profile.ts';

const getpid = libcFunction<[]>('int getpid()');

/**
 * What `arm` has the program do before it relies on it: it has loaded, with its native module, and can read
 * what it was given.
 * @throws what is wrong
 */
export function selfTest(): void {
  getpid();
  loadManifest();
  readProfile(join(PAYLOAD_DIRECTORY, 'profile'));
}
