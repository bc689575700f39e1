import { fmode } from '../../linux/file.ts';
import type { File } from '../../linux/fs.ts';
import type { NamedFile } from './named.ts';
import { FileRefusal } from './refusal.ts';

/** The files that tell of stalls (Documentation/accounting/psi.rst): the system's, and those of a cgroup. */
const PRESSURE: Readonly<Record<string, RegExp>> = {
  proc: /\/pressure\/(cpu|io|irq|memory)$/,
  cgroup2: /\/(cpu|io|irq|memory)\.pressure$/,
};

/**
 * What is written to such a file sets a trigger that belongs to the open file (psi_trigger_create in
 * kernel/sched/psi.c). One that is opened again has none, and a poll of it then returns at once with an
 * error, again and again.
 * @throws FileRefusal if a trigger may have been set
 */
export function checkPressure(
  { f_mode }: Pick<File, 'f_mode'>,
  { path, fileSystem }: { readonly path: string; readonly fileSystem: Pick<NamedFile['fileSystem'], 'name'> },
): void {
  const isPressure = PRESSURE[fileSystem.name]?.test(path) === true;
  if (isPressure && (f_mode & fmode.write) !== 0)
    throw new FileRefusal(`has ${path} open for writing, and may have a trigger for pressure (PSI) there`);
}
