import { showBytes } from '../vmcore/byte-text.ts';

/** Control characters but newline and tab: C0, DEL and C1. */
const CONTROL = /(?![\n\t])\p{Cc}/gu;

/** Text for a terminal: names of processes and files, and what a kernel logged, may hold escape sequences of anybody's making. */
export function printable(text: string): string {
  return showBytes(text).replace(CONTROL, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}
