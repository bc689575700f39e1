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

/** Parses a whole number from 1 on, for commander. */
export function positiveNumber(text: string): number {
  const value = wholeNumber(text);
  if (value === 0) throw new InvalidArgumentError('at least 1 is wanted.');
  return value;
}

/** Parses a number of days, with fractions and more than 0, for commander. */
export function days(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value <= 0) {
    throw new InvalidArgumentError('a number of days is wanted.');
  }
  return value;
}
