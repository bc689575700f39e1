import { copyFileSync, existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { WITHOUT_PROCEDURES } from '../images/image-names.ts';

/** Puts what `keepWithoutProcedures` kept into the images: the next restore runs no procedure. */
export function dropProcedures(directory: string): void {
  const kept = join(directory, WITHOUT_PROCEDURES);
  if (!existsSync(kept)) return;
  for (const name of readdirSync(kept)) copyFileSync(join(kept, name), join(directory, name));
}
