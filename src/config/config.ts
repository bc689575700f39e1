import { readFileSync } from 'node:fs';
import { parse, TomlError } from 'smol-toml';
import type { z } from 'zod';
import { codeOf, messageOf } from '../system/thrown.ts';
import { type KeyPath, lineOfKey } from './locate.ts';
import { type Config, configSchema } from './schema.ts';

/** Where the configuration is, unless a command is told otherwise. */
export const CONFIG_PATH = '/etc/otherworld/otherworld.toml';

/** One thing that is wrong with a configuration file. */
export interface ConfigProblem {
  /** Line from 1; undefined when the problem has no place (a key is missing from an empty file). */
  readonly line: number | undefined;
  readonly message: string;
}

/** The configuration file is wrong; the message has one line per problem, `FILE:LINE: what`. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly ConfigProblem[];

  constructor(path: string, problems: readonly ConfigProblem[]) {
    super(problems.map((p) => `${path}${p.line === undefined ? '' : `:${p.line}`}: ${p.message}`).join('\n'));
    this.problems = problems;
  }
}

/** The configuration that holds when there is no file. */
export function defaultConfig(): Config {
  return configSchema.parse({});
}

/**
 * Reads and checks the configuration.
 * @returns the configuration with defaults filled in; the defaults alone if the file does not exist
 * @throws ConfigError with line numbers, or without one if the file cannot be read
 */
export function loadConfig(path: string = CONFIG_PATH): Config {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return defaultConfig();
    const why = messageOf(error);
    throw new ConfigError(path, [{ line: undefined, message: `cannot be read: ${why}` }]);
  }
  return parseConfig(text, path);
}

/**
 * Checks the text of a configuration file.
 * @param path only for messages
 * @throws ConfigError
 */
export function parseConfig(text: string, path: string): Config {
  const result = configSchema.safeParse(parseToml(text, path), { error: wording });
  if (result.success) return result.data;
  throw new ConfigError(path, problemsOf(text, result.error.issues));
}

function parseToml(text: string, path: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const message = error.message.replace(/^Invalid TOML document: /, '').split('\n')[0] ?? '';
    throw new ConfigError(path, [{ line: error.line, message: `not valid TOML: ${message}` }]);
  }
}

function problemsOf(text: string, issues: readonly z.core.$ZodIssue[]): ConfigProblem[] {
  const problems = issues.flatMap((issue) => {
    const path = issue.path.filter((part) => typeof part !== 'symbol');
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => problem(text, [...path, key], `unknown key ${nameOf([...path, key])}`));
    }
    return [problem(text, path, `${nameOf(path)}: ${issue.message}`)];
  });
  return problems.sort((a, b) => (a.line ?? 0) - (b.line ?? 0));
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

function problem(text: string, path: KeyPath, message: string): ConfigProblem {
  return { line: lineOfKey(text, path), message };
}
