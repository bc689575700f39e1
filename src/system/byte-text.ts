import { isUtf8 } from 'node:buffer';

/**
 * Names of processes and files are bytes to the kernel, mostly but not always UTF-8: the 15 bytes of a
 * process's name may end within a character. As text, each byte that is no part of UTF-8 becomes a lone
 * surrogate, U+DC80 to U+DCFF (as in Python's PEP 383), which UTF-8 itself never has: so text and bytes are
 * the same, and text that is UTF-8 reads as it should.
 */
const ESCAPE = 0xdc00;
const ESCAPED = /[\udc80-\udcff]/u;

/** The length of the UTF-8 character at `at`, 0 if there is none. */
function characterBytes(bytes: Buffer, at: number): number {
  const first = bytes[at] ?? 0;
  const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  return at + length <= bytes.length && isUtf8(bytes.subarray(at, at + length)) ? length : 0;
}

/** Bytes as text, from which {@link textToBytes} makes the same bytes again. */
export function bytesToText(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString('utf8');
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const length = characterBytes(bytes, at);
    text +=
      length === 0 ? String.fromCharCode(ESCAPE + (bytes[at] ?? 0)) : bytes.toString('utf8', at, at + length);
    at += Math.max(length, 1);
  }
  return text;
}

/** The bytes that {@link bytesToText} made a text of. */
export function textToBytes(text: string): Buffer {
  if (!ESCAPED.test(text)) return Buffer.from(text);
  const parts = text.split(/([\udc80-\udcff])/u);
  return Buffer.concat(
    parts.map((part) =>
      /^[\udc80-\udcff]$/u.test(part) ? Buffer.of(part.charCodeAt(0) - ESCAPE) : Buffer.from(part),
    ),
  );
}

/**
 * Whether the bytes behind a text are UTF-8: other text must not be used as a path, it would name another
 * file.
 */
export function isWholeText(text: string): boolean {
  return text.isWellFormed();
}

/** Text with each byte that is not UTF-8 written as `\xe9`: for sentences that have a name in them. */
export function showBytes(text: string): string {
  return text.replace(/[\udc80-\udcff]/gu, (byte) => `\\x${(byte.charCodeAt(0) - ESCAPE).toString(16)}`);
}

/** For JSON.stringify: readers do not agree on text that is not well formed. */
export function wellFormed(_key: string, value: unknown): unknown {
  return typeof value === 'string' ? showBytes(value) : value;
}

/**
 * Text for people and JSON: itself, or, if its bytes are not UTF-8, what a shell makes those bytes of:
 * `$'caf\xe9'`. Text that begins that way is written so as well, so that each text stands for one name.
 */
export function showText(text: string): string {
  if (isWholeText(text) && !text.startsWith("$'")) return text;
  const quoted = showBytes(text.replace(/[\\']/g, '\\$&'));
  return `$'${quoted}'`;
}
