import { execFileSync } from 'node:child_process';
import { type CriuVersion, parseCriuVersion } from '../criu/images/index.ts';
import { runtimeProgram } from './runtime-program.ts';

/** The version of the CRIU that will restore; undefined if it does not say. */
export function criuVersion(): CriuVersion | undefined {
  const [program = '', ...args] = runtimeProgram('criu');
  return parseCriuVersion(execFileSync(program, [...args, '--version'], { encoding: 'utf8' }));
}
