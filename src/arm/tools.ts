import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { INSTALLATION } from '../config/installation.ts';
import { findProgram } from './command.ts';
import type { CpioEntry } from './cpio.ts';
import { withoutSections } from './elf.ts';
import { ArmError } from './errors.ts';
import { sharedLibraries } from './libraries.ts';

/**
 * The programs that the crash initramfs's own scripts run, and the Debian package of each. Their options are
 * those of util-linux and coreutils, which klibc and busybox have under the same names and do not know.
 */
export const TOOLS = [
  ['mount', 'mount'],
  ['switch_root', 'util-linux'],
  ['cp', 'coreutils'],
  ['rm', 'coreutils'],
] as const;

/**
 * The scripts that follow mkinitramfs's archive, and where they are; those before it are given to
 * mkinitramfs.
 */
const SCRIPTS = {
  'tools.sh': 'otherworld/tools.sh',
  'enter.sh': 'otherworld/enter.sh',
  'cpus.sh': 'conf/conf.d/otherworld',
} as const;

/**
 * What the crash initramfs runs of ours, in a directory of ours: programs, all their libraries with the
 * dynamic linker, and scripts. No hook of the distribution can replace any of it.
 * @throws ArmError if a program is missing
 */
export function toolFiles(): CpioEntry[] {
  const programs = TOOLS.map(([name, packageName]) => {
    const path = findProgram(name);
    if (path === undefined) throw new ArmError(`${name} is not installed: apt-get install ${packageName}`);
    return { name, path };
  });
  const libraries = sharedLibraries(programs.map(({ path }) => path));
  return [
    ...programs.map(({ name, path }) => elfFile(`otherworld/bin/${name}`, path)),
    ...libraries.map(({ name, path }) => elfFile(`otherworld/lib/${name}`, path)),
    ...Object.entries(SCRIPTS).map(([name, path]) => ({
      path,
      mode: 0o500,
      data: readFileSync(join(INSTALLATION, 'src/arm/initramfs', name)),
    })),
  ];
}

function elfFile(path: string, from: string): CpioEntry {
  return { path, mode: 0o500, data: withoutSections(readFileSync(from)) };
}
