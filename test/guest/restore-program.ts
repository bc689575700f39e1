import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { z } from 'zod';
import { bundleOptions } from '../../src/arm/bundle.ts';
import type { TestGuest } from './harness.ts';

const HOME = '/usr/lib/otherworld';
const PROGRAM = `${HOME}/lib/restore.mjs`;
const resultSchema = z.object({ notes: z.array(z.string()) });

/** Puts the program that restores images into a guest without Otherworld. */
export async function installRestore(guest: TestGuest): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-restore-'));
  const outfile = join(directory, 'restore.mjs');
  await build({ ...bundleOptions, entryPoints: [join(import.meta.dirname, 'programs/restore.ts')], outfile });
  await guest.sh(`mkdir -p ${HOME}/lib`);
  await guest.copyIn(outfile, PROGRAM);
  rmSync(directory, { recursive: true });
}

/** Copies images into a guest and restores them as the crash world does; fails the test if something could not be set again. */
export async function restoreIn(guest: TestGuest, images: string): Promise<string[]> {
  await guest.sh('rm -rf /root/images');
  await guest.copyIn(images, '/root/images');
  const output = await guest.sh(`${HOME}/node_modules/node/bin/node ${PROGRAM} /root/images`);
  return resultSchema.parse(JSON.parse(output)).notes;
}
