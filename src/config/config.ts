import { readFileSync } from 'node:fs';
import { parse, TomlError } from 'smol-toml';
import type { z } from 'zod';
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
 * @throws ConfigError with line numbers; other errors of reading the file as they are
 */
export function loadConfig(path: string = CONFIG_PATH): Config {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return defaultConfig();
    throw error;
  }
  return parseConfig(text, path);
}

/**
 * Checks the text of a configuration file.
 * @param path only for messages
 * @throws ConfigError
 */
export function parseConfig(text: string, path: string): Config {
  const result = configSchema.safeParse(parseToml(text, path));
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
  return issues.flatMap((issue) => {
    const path = issue.path.filter((part) => typeof part !== 'symbol');
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) =>
        problem(text, [...path, key], `unknown key ${[...path, key].join('.')}`),
      );
    }
    return [problem(text, path, `${path.join('.')}: ${issue.message}`)];
  });
}

function problem(text: string, path: KeyPath, message: string): ConfigProblem {
  return { line: lineOfKey(text, path), message };
}
