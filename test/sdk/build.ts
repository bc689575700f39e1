import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const here = import.meta.dirname;
const headers = join(here, '../../sdk/c');
let directory: string | undefined;
/** Programs that this process has compiled, by how. */
const built = new Map<string, string>();

/** Where programs are compiled to; gone when the tests of this process have ended. */
function scratch(): string {
  if (directory !== undefined) return directory;
  const made = mkdtempSync(join(tmpdir(), 'otherworld-sdk-'));
  process.once('exit', () => rmSync(made, { recursive: true, force: true }));
  directory = made;
  return made;
}

/**
 * Compiles a C program of this directory, once, and returns the path of the executable. Throws with the
 * compiler's words.
 *
 * @param source name of the file
 * @param compiler `gcc` or `g++`, the latter for C++ whatever the file's name says
 */
export function build(source: string, options: readonly string[] = [], compiler = 'gcc'): string {
  const how = [compiler, source, ...options].join(' ');
  const output = built.get(how) ?? join(scratch(), String(built.size));
  if (built.has(how)) return output;
  const language = compiler === 'g++' ? ['-x', 'c++'] : [];
  const warnings = ['-Wall', '-Wextra', '-pedantic', '-Werror'];
  const paths = ['-I', headers, ...language, join(here, source), '-o', output];
  execFileSync(compiler, ['-O2', '-mno-red-zone', ...warnings, ...options, ...paths], { stdio: 'pipe' });
  built.set(how, output);
  return output;
}
