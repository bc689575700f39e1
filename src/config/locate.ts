/** A key of a TOML document as the schema names it: table names, keys and array indices from the root. */
export type KeyPath = readonly (string | number)[];

const KEY =
  /(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+))*/;
const HEADER = new RegExp(`^\\s*\\[\\s*(${KEY.source})\\s*\\]`);
const ASSIGNMENT = new RegExp(`^\\s*(${KEY.source})\\s*=`);

/**
 * The line (from 1) on which a key of a valid TOML document is set, or, if it is set nowhere, the line of the nearest
 * table or key around it; undefined if there is none of these. TOML parsers keep no positions, hence this second look at the text:
 * table headers and `key =` at the start of lines are found, elements of arrays and inline tables count as their key.
 */
export function lineOfKey(text: string, path: KeyPath): number | undefined {
  const wanted = path.map(String);
  let table: string[] = [];
  let best: { line: number; depth: number } | undefined;
  for (const [index, content] of text.split('\n').entries()) {
    const header = HEADER.exec(content)?.[1];
    const assigned = header === undefined ? ASSIGNMENT.exec(content)?.[1] : undefined;
    if (header !== undefined) table = splitKey(header);
    const here = assigned === undefined ? table : [...table, ...splitKey(assigned)];
    if (header === undefined && assigned === undefined) continue;
    const agrees = here.every((part, depth) => part === wanted[depth]);
    if (agrees && here.length > (best?.depth ?? 0)) best = { line: index + 1, depth: here.length };
  }
  return best?.line;
}

function splitKey(key: string): string[] {
  const parts = key.match(/"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+/g) ?? [];
  return parts.map((part) => (/^["']/.test(part) ? part.slice(1, -1) : part));
}
