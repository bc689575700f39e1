import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { INSTALLATION } from '../config/installation.ts';
import { cached, fileStamp } from './cache.ts';
import { findProgram, runProgram } from './command.ts';
import { withoutSections } from './elf.ts';
import { ArmError } from './errors.ts';
import { sharedLibraries } from './libraries.ts';

/** Raise when the steps below change in a way that the inputs' stamps do not show. */
const LAYOUT_VERSION = 2;

/** Level 6 is within 10 % of level 19's size for a tenth of its time. */
const SQUASHFS_OPTIONS = [
  '-comp',
  'zstd',
  '-Xcompression-level',
  '6',
  '-b',
  '128K',
  '-noappend',
  '-quiet',
  '-no-progress',
];

/**
 * What of the koffi package runs: its JavaScript, as src/system/libc.ts requires it, and the one native
 * module.
 */
const KOFFI_PARTS = ['package.json', 'index.cjs', 'src/koffi/index.cjs', 'src/koffi/src/static.cjs'].map(
  (part) => join('koffi', part),
);
const KOFFI_NATIVE = '@koromix/koffi-linux-x64';
const KOFFI_NATIVE_PARTS = ['package.json', 'index.js', 'linux_x64/koffi.node'];

/**
 * The squashfs that the crash world mounts: bin/node, bin/criu, lib/ with all their shared libraries and the
 * dynamic linker, and node_modules/ with koffi. Started as `lib/ld-linux-x86-64.so.2 --library-path lib
 * bin/node`, it needs nothing of the root file system. Built once per set of inputs.
 * @throws ArmError if CRIU or squashfs-tools is missing
 */
export function buildRuntime(): { path: string; built: boolean } {
  const criu = findProgram('criu');
  if (criu === undefined) throw new ArmError('CRIU is not installed: apt-get install criu');
  if (findProgram('mksquashfs') === undefined) {
    throw new ArmError('mksquashfs is not installed: apt-get install squashfs-tools');
  }
  const modules = join(INSTALLATION, 'node_modules');
  const native = join(modules, KOFFI_NATIVE, 'linux_x64/koffi.node');
  const libraries = sharedLibraries([process.execPath, criu, native]);
  const stamps = [process.execPath, criu, native, ...libraries.map(({ path }) => path)].map(fileStamp);
  return cached('runtime', [LAYOUT_VERSION, SQUASHFS_OPTIONS, stamps], (path) => {
    const root = `${path}.root`;
    rmSync(root, { recursive: true, force: true });
    for (const part of ['bin', 'lib', 'node_modules']) mkdirSync(join(root, part), { recursive: true });
    copyProgram(process.execPath, join(root, 'bin/node'));
    copyProgram(criu, join(root, 'bin/criu'));
    for (const library of libraries) copyFileSync(library.path, join(root, 'lib', library.name));
    for (const part of KOFFI_PARTS) copyPart(modules, part, join(root, 'node_modules'));
    for (const part of KOFFI_NATIVE_PARTS)
      copyPart(modules, join(KOFFI_NATIVE, part), join(root, 'node_modules'));
    runProgram('mksquashfs', [root, path, ...SQUASHFS_OPTIONS]);
    rmSync(root, { recursive: true, force: true });
  });
}

function copyProgram(from: string, to: string): void {
  writeFileSync(to, withoutSections(readFileSync(from)));
  chmodSync(to, statSync(from).mode & 0o777);
}

function copyPart(modules: string, part: string, target: string): void {
  mkdirSync(dirname(join(target, part)), { recursive: true });
  cpSync(join(modules, part), join(target, part), { recursive: true, dereference: true });
}
