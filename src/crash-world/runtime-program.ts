import { join } from 'node:path';
import { RUNTIME_DIRECTORY } from '../config/paths.ts';

/** The command that starts a program of the runtime with the runtime's own libraries. */
export function runtimeProgram(name: string): string[] {
  const library = join(RUNTIME_DIRECTORY, 'lib');
  return [
    join(library, 'ld-linux-x86-64.so.2'),
    '--library-path',
    library,
    join(RUNTIME_DIRECTORY, 'bin', name),
  ];
}
