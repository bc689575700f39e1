import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, struct } from '../vmcore/view.ts';

/** `struct kobject` (include/linux/kobject.h): what is a directory of /sys. */
export const kobjectStruct = struct('kobject', { name: pointer, parent: pointer });

/** Directories on the way to a device are not more, nor are their names longer. */
const MAX_DEPTH = 64;
const MAX_NAME = 256;

/**
 * The path of a kobject below /sys: `/devices/pci0000:00/…`. Throws a ContainerError if it does not end, and
 * what memory throws.
 */
export function kobjectPath(kernel: Kernel, kobject: bigint): string {
  const names: string[] = [];
  const Kobject = kernel.bind(kobjectStruct);
  for (let at = kobject; at !== 0n; at = Kobject.at(at).parent) {
    if (names.length >= MAX_DEPTH) throw new ContainerError('kobject', kobject, 'has too many above it');
    names.unshift(kernel.memory.cstring(Kobject.at(at).name, MAX_NAME));
  }
  return names.map((name) => `/${name}`).join('');
}
