import * as z from 'zod';
import { messageOf } from './thrown.ts';

/**
 * What is wrong with the JSON of a file of ours, in one line, of what JSON.parse or a schema has thrown; any
 * other error in its own words.
 */
export function damageOf(error: unknown): string {
  if (error instanceof SyntaxError) return `it is not JSON (${error.message})`;
  if (error instanceof z.ZodError) {
    return error.issues
      .map(({ path, message }) => (path.length === 0 ? message : `${path.join('.')}: ${message}`))
      .join('; ');
  }
  return messageOf(error);
}
