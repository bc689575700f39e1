import { runProgram } from './command.ts';
import { ArmError } from './errors.ts';

/** Shared libraries of a program, with the names by which they are asked for. */
export interface SharedLibrary {
  /** `libc.so.6`, or for the dynamic linker the last part of its path. */
  readonly name: string;
  readonly path: string;
}

/**
 * What `ldd` prints, as a list; the vDSO has no file and is left out.
 * @throws ArmError naming a library that is not found
 */
export function parseLdd(program: string, text: string): SharedLibrary[] {
  return text
    .split('\n')
    .filter(
      (line) => line.trim() !== '' && !line.includes('linux-vdso') && !line.includes('statically linked'),
    )
    .map((line) => {
      const [, arrow, path = arrow] = /^\s*(?:(\S+) => )?(\/\S+) \(0x/.exec(line) ?? [];
      if (path === undefined) throw new ArmError(`${program} lacks a shared library: ${line.trim()}`);
      return { name: path.split('/').at(-1) ?? path, path };
    });
}

/** The shared libraries that programs and modules load at start, each once, the dynamic linker among them. */
export function sharedLibraries(programs: readonly string[]): SharedLibrary[] {
  const all = programs.flatMap((program) => parseLdd(program, runProgram('ldd', [program])));
  return [...new Map(all.map((library) => [library.name, library])).values()];
}
