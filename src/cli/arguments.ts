import { InvalidArgumentError } from 'commander';

/** The exit status for a wrong use of a command. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly exitStatus = 2;
}

/** Parses a whole number from 0 on, for commander. */
export function wholeNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isSafeInteger(value) || value < 0) {
    throw new InvalidArgumentError('a whole number is wanted.');
  }
  return value;
}
