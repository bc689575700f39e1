import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { INSTALLATION } from '../config/installation.ts';
import { CACHE_DIRECTORY } from '../config/paths.ts';
import { messageOf } from '../system/thrown.ts';
import { cached } from './cache.ts';
import { runProgram, SYSTEM_PATH } from './command.ts';
import { archiveEnd, type CpioEntry, cpioArchive, isCpioArchive } from './cpio.ts';
import { ArmError } from './errors.ts';
import { MARK_PATH } from './loaded-mark.ts';

const SCRIPT = join(INSTALLATION, 'src/arm/initramfs/trial.sh');
const LONGEST_OUTPUT = 2 ** 20;
/**
 * A module that hangs while it is loaded must not hold up a boot for ever. Emulated and on a busy host a
 * trial takes two minutes.
 */
const LONGEST_TRIAL_SECONDS = 600;

/** What is another at each arming, and no program: whoever reads it was tried. */
const CHANGING = new Set([
  'otherworld/run/payload/profile',
  'otherworld/run/payload/manifest.json',
  MARK_PATH,
]);

/** What a trial's outcome depends on, by content. */
export function trialInputs(base: Buffer, own: readonly CpioEntry[], kernelRelease: string): unknown {
  const digest = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');
  const lasting = own.filter(({ path }) => !CHANGING.has(path));
  return [
    kernelRelease,
    readFileSync(SCRIPT, 'utf8'),
    digest(base),
    ...lasting.map(({ path, mode, data }) => [path, mode, digest(data)]),
  ];
}

/**
 * Tries a crash initramfs, unless one of the same programs, libraries and scripts, byte for byte, has passed
 * before (a note of that is kept in the cache).
 * @param base mkinitramfs's archive
 * @param own what follows it
 * @throws ArmError saying what does not work
 */
export function tryInitramfs(base: string, own: readonly CpioEntry[], kernelRelease: string): void {
  const archive = readFileSync(base);
  cached('trial', trialInputs(archive, own, kernelRelease), (path) => {
    tryOnce(archive, own, kernelRelease);
    writeFileSync(path, '');
  });
}

/**
 * Unpacks the crash initramfs as the kernel would, and runs in it what its scripts will run after a panic:
 * the script that mounts the runtime, Node.js, CRIU and the crash world's own program. It is done in a mount
 * namespace of its own, which leaves nothing behind.
 * @throws ArmError saying what does not work
 */
function tryOnce(base: Buffer, own: readonly CpioEntry[], kernelRelease: string): void {
  const tree = join(CACHE_DIRECTORY, 'trial');
  rmSync(tree, { recursive: true, force: true });
  mkdirSync(tree, { mode: 0o700 });
  try {
    for (const archive of [...archivesOf(base), Buffer.concat(cpioArchive(own))])
      runProgram('cpio', ['-i', '-d', '-u', '--quiet', '--no-absolute-filenames', '-D', tree], {
        input: archive,
      });
    runTrial(tree, kernelRelease);
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
}

function runTrial(tree: string, kernelRelease: string): void {
  const args = ['--mount', '--propagation', 'private', '/bin/sh', SCRIPT, tree, kernelRelease];
  const { status, signal, stderr, error } = spawnSync('unshare', args, {
    encoding: 'utf8',
    env: { ...process.env, PATH: SYSTEM_PATH, LC_ALL: 'C' },
    maxBuffer: LONGEST_OUTPUT,
    timeout: LONGEST_TRIAL_SECONDS * 1000,
    killSignal: 'SIGKILL',
  });
  if (error !== undefined) throw new ArmError(`the crash initramfs cannot be tried: ${error.message}`);
  if (status === 0) return;
  const said =
    stderr.trim().split('\n').slice(-6).join('\n  ') || `ended with ${signal ?? `status ${status}`}`;
  throw new ArmError(`the crash initramfs was tried before it is loaded, and does not work:\n  ${said}`);
}

/**
 * The archives in what mkinitramfs writes, unpacked: those that the kernel takes as they are, and one that is
 * compressed, which is the last.
 * @throws ArmError if it is compressed in another way than was asked for
 */
export function archivesOf(file: Buffer): Buffer[] {
  const archives: Buffer[] = [];
  let at = 0;
  while (at < file.length) {
    if (file[at] === 0) at += 1;
    else if (isCpioArchive(file, at)) {
      const end = archiveEnd(file, at);
      archives.push(file.subarray(at, end));
      at = end;
    } else return [...archives, decompressed(file.subarray(at))];
  }
  return archives;
}

const ZSTD = 0x28b52ffd;
const GZIP = 0x1f8b;

function decompressed(data: Buffer): Buffer {
  try {
    if (data.length > 4 && data.readUInt32BE(0) === ZSTD) return zstdDecompressSync(data);
    if (data.length > 2 && data.readUInt16BE(0) === GZIP) return gunzipSync(data);
  } catch (error) {
    throw new ArmError(`mkinitramfs's archive is damaged: ${messageOf(error)}`);
  }
  throw new ArmError("mkinitramfs's archive is compressed neither with zstd nor with gzip: install zstd");
}
