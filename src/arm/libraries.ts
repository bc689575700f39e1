import { runProgram } from './command.ts';
import { ArmError } from './errors.ts';

/** Shared libraries of a program, with the names by which they are asked for. */
export interface SharedLibrary {
  /** `libc.so.6`, or for the dynamic linker the last part of its path. */
  readonly name: string;
  readonly path: string;
}

/**
 * What `ldd` prints of these programs, as a list; the vDSO has no file and is left out.
 * @throws ArmError naming a library that is not found
 */
export function parseLdd(programs: readonly string[], text: string): SharedLibrary[] {
  const libraries: SharedLibrary[] = [];
  // Of several it says before each which one it is.
  let program = programs[0] ?? '';
  for (const line of text.split('\n')) {
    const heading = /^(\S.*):$/.exec(line)?.[1];
    if (heading !== undefined) program = heading;
    else if (line.trim() !== '' && !/linux-vdso|statically linked/.test(line))
      libraries.push(libraryOf(program, line));
  }
  return libraries;
}

function libraryOf(program: string, line: string): SharedLibrary {
  const [, arrow, path = arrow] = /^\s*(?:(\S+) => )?(\/\S+) \(0x/.exec(line) ?? [];
  if (path === undefined) throw new ArmError(`${program} lacks a shared library: ${line.trim()}`);
  return { name: path.split('/').at(-1) ?? path, path };
}

/** The shared libraries that programs and modules load at start, each once, the dynamic linker among them. */
export function sharedLibraries(programs: readonly string[]): SharedLibrary[] {
  const all = parseLdd(programs, runProgram('ldd', programs));
  return [...new Map(all.map((library) => [library.name, library])).values()];
}
