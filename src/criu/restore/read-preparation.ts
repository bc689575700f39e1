import { join } from 'node:path';
import { CONTENT, PREPARATION, type Preparation, preparationSchema } from '../images/plan/preparation.ts';
import { readImageText } from './open-image.ts';

/** The content file of a directory that `writePreparation` wrote. */
export function contentPath(directory: string): string {
  return join(directory, CONTENT);
}

/** Reads what `writePreparation` wrote. Throws if the file is missing or damaged. */
export function readPreparation(directory: string): Preparation {
  return preparationSchema.parse(JSON.parse(readImageText(join(directory, PREPARATION))));
}
