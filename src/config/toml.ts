import { type AST, ParseError, parseTOML } from 'toml-eslint-parser';

/** A key of a TOML document as the schema names it: table names, keys and array indices from the root. */
export type KeyPath = readonly (string | number)[];

/** A place in a text; both count from 1, columns in UTF-16 code units. */
export interface TextPosition {
  readonly line: number;
  readonly column: number;
}

/** A text is not TOML. The message says what is wrong, and what to do about it where that is known. */
export class TomlError extends Error {
  override readonly name = 'TomlError';
  readonly position: TextPosition;

  constructor(message: string, position: TextPosition) {
    super(message);
    this.position = position;
  }
}

/** What a text says, and where. */
export interface TomlDocument {
  /** Tables are objects without a prototype, so every key is one of the text. */
  readonly value: Table;
  /**
   * Where a key is; of one that is not there, the nearest table or key around it; undefined if there is none.
   */
  keyAt(path: KeyPath): TextPosition | undefined;
  /** The same of a key's value: for a table with a header of its own, that is the header. */
  valueAt(path: KeyPath): TextPosition | undefined;
}

type Table = Record<string, unknown>;

/** What to do where the parser says only what it has found. */
const REMEDIES: Readonly<Record<string, string>> = {
  'Defining a key multiple times is invalid': 'this is set above already: remove one of the two',
  'Unterminated string constant': 'the closing quote is missing',
  'Unterminated array': 'the closing ] is missing',
  'Unterminated table-key': 'the closing ] is missing',
  'Unterminated inline table': 'the closing } is missing',
  'Expected comma (,) token': 'a comma is missing before this',
  'Expected equal (=) token': 'a key and = are wanted before a value',
};
/** What the parser says where it comes upon something else than a value. */
const NO_VALUE_THERE = new Set([
  'Unspecified values are invalid',
  'Unexpected character',
  'Unexpected token',
]);
const NO_VALUE = 'a value is wanted after =: a string in quotes, a number, true or false, or a list in [ ]';

/**
 * Parses TOML 1.1.
 * @throws TomlError
 */
export function parseToml(text: string): TomlDocument {
  const reader = new TomlReader();
  const [{ body }] = parse(text).body;
  for (const part of body) {
    if (part.type === 'TOMLTable') reader.readTable(part);
    else reader.readPair(part, reader.root, []);
  }
  return reader;
}

function parse(text: string): AST.TOMLProgram {
  // A byte order mark in the front is no part of what is said.
  const content = text.replace(/^\uFEFF/, '');
  try {
    return parseTOML(content, { tomlVersion: '1.1' });
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    const { lineNumber: line, column, index, message } = error;
    const empty = NO_VALUE_THERE.has(message) ? afterEqualsSign(content.slice(0, index)) : undefined;
    if (empty !== undefined) throw new TomlError(NO_VALUE, empty);
    throw new TomlError(REMEDIES[message] ?? message, { line, column: column + 1 });
  }
}

/**
 * Behind a `=` without a value, where the text before ends with that: the parser may notice only lines later.
 */
function afterEqualsSign(before: string): TextPosition | undefined {
  const lines = before.split('\n');
  const last = lines.findLastIndex((content) => /^\s*[^\s#]/.test(content));
  const pair = /^[^#]*=(?=\s*(?:#|$))/.exec(lines[last] ?? '')?.[0];
  return pair === undefined ? undefined : { line: last + 1, column: pair.length + 1 };
}

/** A key or value that was read. */
interface Place {
  readonly key: TextPosition;
  readonly value: TextPosition;
}

class TomlReader implements TomlDocument {
  readonly root: Table = newTable();
  readonly #places = new Map<string, Place>();

  get value(): Table {
    return this.root;
  }

  keyAt(path: KeyPath): TextPosition | undefined {
    return this.#nearest(path)?.key;
  }

  valueAt(path: KeyPath): TextPosition | undefined {
    return this.#nearest(path)?.value;
  }

  #nearest(path: KeyPath): Place | undefined {
    for (let depth = path.length; depth > 0; depth--) {
      const found = this.#places.get(keyOf(path.slice(0, depth)));
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** `[a.b]`, or `[[a.b]]`: one more element of an array. */
  readTable({ key, resolvedKey, body }: AST.TOMLTable): void {
    const header = startOf(key);
    let table: unknown = this.root;
    for (const [depth, part] of resolvedKey.entries()) {
      const path = resolvedKey.slice(0, depth + 1);
      // Of several names in a header the ones before the last may be those of other headers.
      const place = this.#places.get(keyOf(path)) ?? { key: header, value: header };
      this.#places.set(keyOf(path), place);
      const isArray = typeof resolvedKey[depth + 1] === 'number';
      table = child(table, part, () => (isArray ? [] : newTable()));
    }
    for (const pair of body) this.readPair(pair, table, resolvedKey);
  }

  /** `a.b = value` in a table. */
  readPair({ key, value }: AST.TOMLKeyValue, table: unknown, above: KeyPath): void {
    let within = table;
    const path = [...above];
    for (const [index, part] of key.keys.entries()) {
      const name = part.type === 'TOMLBare' ? part.name : part.value;
      path.push(name);
      const isLast = index === key.keys.length - 1;
      const place = { key: startOf(part), value: startOf(isLast ? value : part) };
      if (isLast || !this.#places.has(keyOf(path))) this.#places.set(keyOf(path), place);
      within = child(within, name, () => (isLast ? this.#read(value, path) : newTable()));
    }
  }

  #read(node: AST.TOMLContentNode, path: KeyPath): unknown {
    if (node.type === 'TOMLValue') return node.value;
    if (node.type === 'TOMLArray') {
      return node.elements.map((element, index) => {
        const start = startOf(element);
        this.#places.set(keyOf([...path, index]), { key: start, value: start });
        return this.#read(element, [...path, index]);
      });
    }
    const table = newTable();
    for (const pair of node.body) this.readPair(pair, table, path);
    return table;
  }
}

function newTable(): Table {
  return Object.create(null);
}

/** What a table or array has under a key; made first if it has nothing there. */
function child(parent: unknown, key: string | number, make: () => unknown): unknown {
  const holder = parent as Record<string | number, unknown>;
  if (!(key in holder)) holder[key] = make();
  return holder[key];
}

function keyOf(path: KeyPath): string {
  return JSON.stringify(path);
}

function startOf({ loc: { start } }: AST.TOMLNode): TextPosition {
  return { line: start.line, column: start.column + 1 };
}
