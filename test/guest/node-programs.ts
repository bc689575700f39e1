import { join } from 'node:path';
import { build } from 'esbuild';
import * as z from 'zod';
import { bundleOptions } from '../../src/arm/bundle.ts';
import { scratchDirectory, type TestGuest } from './harness.ts';

const HOME = '/usr/lib/otherworld';
const resultSchema = z.object({ notes: z.array(z.string()) });

/**
 * Puts a program of `programs` (NAME.ts, of the project's own parts) into a guest. @returns the command that
 * runs it
 */
export async function installNodeProgram(guest: TestGuest, name: string): Promise<string> {
  const scratch = scratchDirectory();
  const outfile = join(scratch.path, `${name}.mjs`);
  const program = `${HOME}/lib/${name}.mjs`;
  try {
    const source = join(import.meta.dirname, `programs/${name}.ts`);
    await build({ ...bundleOptions, entryPoints: [source], outfile });
    await guest.sh(`mkdir -p ${HOME}/lib`);
    await guest.copyIn(outfile, program);
  } finally {
    scratch.remove();
  }
  return `${HOME}/node_modules/node/bin/node ${program}`;
}

/**
 * Copies images into a guest and restores them as the crash world does, by the program `restore`; fails the
 * test if something could not be set again.
 */
export async function restoreIn(guest: TestGuest, restore: string, images: string): Promise<string[]> {
  await guest.sh('rm -rf /root/images');
  await guest.copyIn(images, '/root/images');
  return resultSchema.parse(JSON.parse(await guest.sh(`${restore} /root/images`))).notes;
}
