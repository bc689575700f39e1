import { InvalidArgumentError } from 'commander';

/** Parses a whole number from 0 on, for commander. */
export function wholeNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isSafeInteger(value) || value < 0) {
    throw new InvalidArgumentError('a whole number is wanted.');
  }
  return value;
}
