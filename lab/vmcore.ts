import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { putProgramHeadersFirst } from './elf-layout.ts';
import { LabError } from './error.ts';
import { guestPaths, readRunningGuest } from './guest.ts';
import { withQmp } from './qmp.ts';

/**
 * Writes the guest's memory as an ELF vmcore, VMCOREINFO included; the guest is stopped meanwhile and goes on
 * afterwards. Of a dead guest that is the dead kernel's memory (with the crash kernel in its reserved
 * region).
 * @returns size of the file in bytes
 * @throws LabError if QEMU cannot write it
 */
export async function dumpGuest(name: string, file: string): Promise<number> {
  readRunningGuest(name);
  const path = resolve(file);
  await withQmp(guestPaths(name).qmp, (qmp) =>
    qmp.execute('dump-guest-memory', { paging: false, protocol: `file:${path}` }),
  );
  const { size } = statSync(path);
  if (size === 0) throw new LabError(`QEMU wrote nothing to ${path}`);
  putProgramHeadersFirst(path);
  return size;
}
