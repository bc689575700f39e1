import { readFileSync } from 'node:fs';
import * as z from 'zod';
import { codeOf, messageOf } from '../system/thrown.ts';
import { type Config, configSchema } from './schema.ts';
import { type KeyPath, parseToml, type TextPosition, type TomlDocument, TomlError } from './toml.ts';

/** Where the configuration is, unless a command is told otherwise. */
export const CONFIG_PATH = '/etc/otherworld/otherworld.toml';

/** Sorts before all that has a place. */
const NOWHERE: TextPosition = { line: 0, column: 0 };

/** One thing that is wrong with a configuration file. */
export interface ConfigProblem {
  /** Undefined when the problem has no place: the file cannot be read, or is empty. */
  readonly position: TextPosition | undefined;
  readonly message: string;
}

/**
 * The configuration file is wrong. The message has one line per problem, `FILE:LINE:COLUMN: what`, with the
 * key and what is wanted instead.
 */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly ConfigProblem[];

  constructor(path: string, problems: readonly ConfigProblem[]) {
    super(problems.map(({ position, message }) => `${placeIn(path, position)}: ${message}`).join('\n'));
    this.problems = problems;
  }
}

function placeIn(path: string, position: TextPosition | undefined): string {
  return position === undefined ? path : `${path}:${position.line}:${position.column}`;
}

/** The configuration that holds when there is no file. */
export function defaultConfig(): Config {
  return configSchema.parse({});
}

/**
 * Reads and checks the configuration.
 * @returns the configuration with defaults filled in; the defaults alone if the file does not exist
 * @throws ConfigError with positions, or without one if the file cannot be read
 */
export function loadConfig(path: string = CONFIG_PATH): Config {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return defaultConfig();
    const why = messageOf(error);
    throw new ConfigError(path, [{ position: undefined, message: `cannot be read: ${why}` }]);
  }
  return parseConfig(text, path);
}

/**
 * Checks the text of a configuration file.
 * @param path only for messages
 * @throws ConfigError
 */
export function parseConfig(text: string, path: string): Config {
  const document = parsed(text, path);
  const result = configSchema.safeParse(document.value, { error: wording });
  if (result.success) return result.data;
  throw new ConfigError(path, problemsOf(document, result.error.issues));
}

function parsed(text: string, path: string): TomlDocument {
  try {
    return parseToml(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const { position, message } = error;
    throw new ConfigError(path, [{ position, message: `not valid TOML: ${message}` }]);
  }
}

function problemsOf(document: TomlDocument, issues: readonly z.core.$ZodIssue[]): ConfigProblem[] {
  const problems = issues.flatMap((issue): ConfigProblem[] => {
    const path = issue.path.filter((part) => typeof part !== 'symbol');
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => unknownKey(document, path, key));
    }
    return [{ position: document.valueAt(path), message: `${nameOf(path)}: ${issue.message}` }];
  });
  return problems.sort(
    ({ position: a = NOWHERE }, { position: b = NOWHERE }) => a.line - b.line || a.column - b.column,
  );
}

function unknownKey(document: TomlDocument, path: KeyPath, key: string): ConfigProblem {
  const known = knownKeys(path);
  const where = path.length === 0 ? 'tables' : `keys of ${nameOf(path)}`;
  return {
    position: document.keyAt([...path, key]),
    message: `unknown key ${nameOf([...path, key])}; ${where} are ${known.join(', ')}`,
  };
}

/** A part of the JSON Schema of the configuration. */
const jsonSchema = z.object({
  properties: z.record(z.string(), z.unknown()).optional(),
  additionalProperties: z.unknown().optional(),
});

/** The keys of a table. */
function knownKeys(path: KeyPath): string[] {
  let found = jsonSchema.parse(z.toJSONSchema(configSchema, { io: 'input' }));
  for (const part of path) {
    const { properties = {}, additionalProperties } = found;
    found = jsonSchema.parse(properties[part] ?? additionalProperties);
  }
  return Object.keys(found.properties ?? {});
}

/** `images.keep`, `element 1 of protect.commands`. */
function nameOf(path: KeyPath): string {
  const last = path.at(-1);
  return typeof last === 'number' ? `element ${last + 1} of ${nameOf(path.slice(0, -1))}` : path.join('.');
}

/** What is wanted instead, for an administrator; undefined where the schema itself says it. */
function wording(issue: z.core.$ZodRawIssue): string | undefined {
  switch (issue.code) {
    case 'invalid_type':
      return `${KINDS[issue.expected] ?? issue.expected} is wanted, not ${JSON.stringify(issue.input)}`;
    case 'invalid_value':
      return `one of ${issue.values.map((value) => JSON.stringify(value)).join(', ')} is wanted, not ${JSON.stringify(issue.input)}`;
    case 'too_small':
      if (issue.origin === 'string') return 'it is empty';
      return `${issue.inclusive ? 'at least' : 'more than'} ${issue.minimum} is wanted, not ${issue.input}`;
    case 'too_big':
      return `at most ${issue.maximum} is wanted, not ${issue.input}`;
    default:
      return undefined;
  }
}

/** The schema's kinds of values, as TOML calls them. */
const KINDS: Readonly<Record<string, string>> = {
  string: 'a string in quotes',
  array: 'an array of strings in quotes',
  boolean: 'true or false',
  number: 'a number',
  int: 'a whole number',
  object: 'a table',
  record: 'a table',
};
