import { showBytes } from '../system/byte-text.ts';

/** Control characters but newline and tab: C0, DEL and C1. */
const CONTROL = /(?![\n\t])\p{Cc}/gu;

/**
 * Text for a terminal: names of processes and files, and what a kernel logged, may hold escape sequences of
 * anybody's making.
 */
export function printable(text: string): string {
  return showBytes(text).replace(CONTROL, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}

const MOST_CHARACTERS = 200;

/**
 * A process's arguments for people: blanks between them, nothing that is not printable, at most 200
 * characters.
 * @param bytes as in /proc/PID/cmdline: a zero byte after each
 * @returns undefined if there are none
 */
export function printableArguments(bytes: Buffer): string | undefined {
  const text = bytes.toString('utf8').replace(/\0+$/, '').replaceAll('\0', ' ');
  const shown = printable(text.replaceAll(/[\n\t]/g, ' ')).trim();
  if (shown === '') return undefined;
  return shown.length > MOST_CHARACTERS ? `${shown.slice(0, MOST_CHARACTERS - 1)}…` : shown;
}
