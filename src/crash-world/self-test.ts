import { join } from 'node:path';
import koffi from 'koffi';
import { loadManifest } from '../config/manifest.ts';
import { PAYLOAD_DIRECTORY } from '../config/paths.ts';
import { readProfile } from '../vmcore/profile.ts';

/**
 * What `arm` has the program do before it relies on it: it has loaded, with its native module, and can read what it was given.
 * @throws what is wrong
 */
export function selfTest(): void {
  koffi.load('libc.so.6').func('int getpid()')();
  loadManifest();
  readProfile(join(PAYLOAD_DIRECTORY, 'profile'));
}
