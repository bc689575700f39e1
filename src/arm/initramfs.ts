import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writevSync,
} from 'node:fs';
import { release as runningRelease } from 'node:os';
import { join } from 'node:path';
import { INSTALLATION } from '../config/installation.ts';
import { cached, cachedPath, contents, fileStamp, treeStamp } from './cache.ts';
import { findProgram, runProgram } from './command.ts';
import { type CpioEntry, cpioArchive } from './cpio.ts';
import { ArmError } from './errors.ts';
import { markFile } from './loaded-mark.ts';
import { toolFiles } from './tools.ts';

const RUNTIME_FILE = 'otherworld/runtime.squashfs';
const SCRIPTS = join(INSTALLATION, 'src/arm/initramfs');

/** zstd at a low level: the image is unpacked once, from memory, and built under a user's eyes. */
function configuration(modules: 'dep' | 'most'): string {
  const settings = {
    MODULES: modules,
    BUSYBOX: 'auto',
    COMPRESS: 'zstd',
    COMPRESSLEVEL: '3',
    KEYMAP: 'n',
    RUNSIZE: '20%',
  };
  const lines = Object.entries({ ...settings, DEVICE: '', NFSROOT: 'auto', FSTYPE: 'auto', RESUME: 'none' });
  return lines.map(([name, value]) => `${name}=${value}\n`).join('');
}

/**
 * The part of the crash initramfs that finds and mounts the root file system, made by the distribution's own
 * mkinitramfs with a configuration of ours (as kdump-tools does). For the running kernel it holds the modules
 * that this machine's root file system needs; if it was prepared before the kernel ran, all common ones.
 * @throws ArmError if initramfs-tools is missing or fails
 */
export function buildBaseInitramfs(kernelRelease: string): { path: string; built: boolean } {
  if (findProgram('mkinitramfs') === undefined) {
    throw new ArmError('mkinitramfs is not installed: apt-get install initramfs-tools');
  }
  const kind = `base.${kernelRelease}`;
  const prepared = cachedPath(kind, inputsOf(kernelRelease, 'most'));
  const modules = kernelRelease === runningRelease() && !prepared.exists ? 'dep' : 'most';
  return cached(kind, inputsOf(kernelRelease, modules), (path) => {
    try {
      makeInitramfs(kernelRelease, modules, path);
    } catch (error) {
      // `dep` cannot tell what the root file system needs on some storage stacks.
      if (modules === 'most') throw error;
      makeInitramfs(kernelRelease, 'most', path);
    }
  });
}

/** What the archive depends on. */
function inputsOf(kernelRelease: string, modules: 'dep' | 'most'): unknown {
  return [
    configuration(modules),
    kernelRelease,
    contents(SCRIPTS),
    ...['/usr/share/initramfs-tools', '/etc/initramfs-tools', '/etc/modprobe.d', '/lib/modprobe.d'].map(
      treeStamp,
    ),
    ...['/etc/fstab', '/etc/crypttab', `/lib/modules/${kernelRelease}/modules.dep`].map(fileStamp),
    modules === 'dep' ? rootDevice() : undefined,
  ];
}

function rootDevice(): string {
  return execFileSync('findmnt', ['-no', 'SOURCE,FSTYPE', '/'], { encoding: 'utf8' }).trim();
}

function makeInitramfs(kernelRelease: string, modules: 'dep' | 'most', path: string): void {
  const directory = `${path}.conf`;
  rmSync(directory, { recursive: true, force: true });
  for (const part of ['hooks', 'scripts/init-bottom', 'conf.d'])
    mkdirSync(join(directory, part), { recursive: true });
  writeFileSync(join(directory, 'initramfs.conf'), configuration(modules));
  writeFileSync(join(directory, 'modules'), '');
  install('hook.sh', join(directory, 'hooks/otherworld'));
  install('init-bottom.sh', join(directory, 'scripts/init-bottom/zz-otherworld'));
  runProgram('mkinitramfs', ['-d', directory, '-o', path, kernelRelease]);
  rmSync(directory, { recursive: true, force: true });
}

function install(script: string, path: string): void {
  copyFileSync(join(SCRIPTS, script), path);
  chmodSync(path, 0o755);
}

/** A file that the crash world finds in /run/otherworld/payload. */
export interface PayloadFile {
  readonly name: string;
  readonly data: Uint8Array;
  /** 0600 unless said otherwise. */
  readonly mode?: number;
}

/**
 * What the crash initramfs has of ours, behind mkinitramfs's archive: our programs, the runtime, the payload
 * and the mark.
 */
export function ownFiles(runtime: string, payload: readonly PayloadFile[], mark: string): CpioEntry[] {
  return [
    ...toolFiles(),
    { path: RUNTIME_FILE, mode: 0o400, data: readFileSync(runtime) },
    ...payload.map(({ name, data, mode = 0o600 }) => ({
      path: `otherworld/run/payload/${name}`,
      mode,
      data,
    })),
    // The bundle looks for its native module beside itself.
    {
      path: 'otherworld/run/node_modules',
      kind: 'link',
      mode: 0o777,
      data: Buffer.from('runtime/node_modules'),
    },
    markFile(mark),
  ];
}

/**
 * Writes the whole crash initramfs: what the kernel looks for before it unpacks anything, mkinitramfs's
 * archive, and an uncompressed one with our own files. (The kernel unpacks several archives in a row; packing
 * the squashfs again would only cost time and memory.)
 * @returns its size in bytes
 */
export function assembleInitramfs(
  early: readonly CpioEntry[],
  base: string,
  own: readonly CpioEntry[],
  path: string,
): number {
  const first = early.length === 0 ? [] : cpioArchive(early);
  const head = readFileSync(base);
  const fd = openSync(path, 'w', 0o600);
  try {
    for (const part of [...first, head, Buffer.alloc((4 - (head.length % 4)) % 4), ...cpioArchive(own)])
      writeWhole(fd, part);
  } finally {
    closeSync(fd);
  }
  return statSync(path).size;
}

function writeWhole(fd: number, data: Uint8Array): void {
  let rest = data;
  while (rest.length > 0) rest = rest.subarray(writevSync(fd, [rest]));
}
