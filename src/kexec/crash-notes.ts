import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PhysicalArea } from './elf-core-header.ts';
import { KexecError } from './error.ts';

/**
 * Where the dying kernel writes its notes: each CPU's registers (/sys/devices/system/cpu/cpuN/crash_notes,
 * crash_notes_size), then vmcoreinfo (/sys/kernel/vmcoreinfo). Only CPUs that are there have notes.
 * Documentation/ABI/testing/sysfs-devices-system-cpu and sysfs-kernel-vmcoreinfo.
 * @param root directory that holds `sys`
 * @throws KexecError if the kernel does not say where they are
 */
export function readCrashNotes(root = '/'): PhysicalArea[] {
  const cpus = join(root, 'sys/devices/system/cpu');
  const directories = readdirSync(cpus)
    .filter((name) => /^cpu\d+$/.test(name))
    .toSorted((a, b) => Number(a.slice(3)) - Number(b.slice(3)))
    .map((name) => join(cpus, name))
    .filter((directory) => existsSync(join(directory, 'crash_notes')));
  if (directories.length === 0)
    throw new KexecError(
      `${cpus} has no CPU with crash_notes: the kernel was built without CONFIG_CRASH_DUMP`,
    );
  return [...directories.map(readCpuNotes), readVmcoreinfo(join(root, 'sys/kernel/vmcoreinfo'))];
}

function readCpuNotes(directory: string): PhysicalArea {
  const [at, size] = [join(directory, 'crash_notes'), join(directory, 'crash_notes_size')];
  return {
    address: parseNumber(readFileSync(at, 'utf8').trim(), 16, at),
    bytes: parseNumber(readFileSync(size, 'utf8').trim(), 10, size),
  };
}

/** `0x0000000001a3e000 1024`: address and size, both hexadecimal. */
function readVmcoreinfo(path: string): PhysicalArea {
  if (!existsSync(path))
    throw new KexecError(`${path} is missing: the kernel was built without CONFIG_VMCORE_INFO`);
  const [address = '', bytes = ''] = readFileSync(path, 'utf8').trim().split(/\s+/);
  return { address: parseNumber(address.replace(/^0x/, ''), 16, path), bytes: parseNumber(bytes, 16, path) };
}

function parseNumber(text: string, radix: 10 | 16, path: string): number {
  const digits = radix === 10 ? /^\d{1,15}$/ : /^[0-9a-f]{1,16}$/i;
  const value = digits.test(text) ? Number.parseInt(text, radix) : 0;
  if (value === 0) throw new KexecError(`${path} has "${text}" where a number is expected; run this as root`);
  return value;
}
