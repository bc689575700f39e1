import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { bundleOptions } from '../src/arm/bundle.ts';
import { keepArmCache, lendArmCache } from './arm-cache.ts';
import { execCaptured, execChecked, LOOK_SECONDS } from './channel.ts';
import { LabError } from './error.ts';
import { repositoryRoot } from './node-tree.ts';

/** Where Otherworld lives on a machine; Node.js and the libraries are in the guest's image already. */
const HOME = '/usr/lib/otherworld';

/** What of the repository is installed as it is; the programs are bundles of `src`, in `lib`. */
const PARTS = [
  'package.json',
  'LICENSE',
  'docs',
  'sdk',
  'src/arm/initramfs',
  'src/crash-world/init.sh',
  'src/crash-world/give-up.sh',
];

const COMMAND = `#!/bin/sh
exec ${HOME}/node_modules/node/bin/node ${HOME}/lib/otherworld.mjs "$@"
`;

/** What is put into a guest. */
export interface Installation {
  /** A tar archive, to be unpacked in HOME. */
  readonly archive: Buffer;
  /** Of all that it consists of: a file that changes, changes it. */
  readonly key: string;
}

/**
 * Builds Otherworld out of a checkout's sources as they are now. The same sources make the same archive,
 * wherever this is called from.
 * @throws LabError if it cannot be built
 */
export async function buildInstallation(checkout: string = repositoryRoot): Promise<Installation> {
  const built = mkdtempSync(join(tmpdir(), 'otherworld-installation-'));
  try {
    await buildPrograms(checkout, join(built, 'lib'));
    const folders = ['-C', checkout, ...PARTS, '-C', built, 'lib'];
    const same = ['--owner=0', '--group=0', '--mode=u+rw,go-w', '--sort=name', '--mtime=@0'];
    const tar = spawnSync('tar', ['-c', ...same, ...folders], { maxBuffer: 256 * 2 ** 20 });
    if (tar.status !== 0) throw new LabError(`packing Otherworld failed: ${tar.stderr.toString()}`);
    const key = createHash('sha256').update(COMMAND).update(tar.stdout).digest('hex');
    return { archive: tar.stdout, key };
  } finally {
    rmSync(built, { recursive: true, force: true });
  }
}

/**
 * Puts Otherworld into a guest and makes `otherworld` a command there, as a package would.
 * @throws LabError if the guest does not take it
 */
export async function installOtherworld(name: string, installation?: Installation): Promise<void> {
  const { archive } = installation ?? (await buildInstallation());
  await guestScript(name, `cd ${HOME} && rm -rf ${PARTS.join(' ')} lib && tar -xf -`, archive);
  await guestScript(name, 'cat > /usr/bin/otherworld && chmod 755 /usr/bin/otherworld', COMMAND);
}

/** The command, with a file for each of its subcommands, and the crash world's program. */
async function buildPrograms(checkout: string, directory: string): Promise<void> {
  // The bundles name their sources as they lie from there.
  const options = { ...bundleOptions, absWorkingDir: checkout };
  const entryPoints = { otherworld: 'src/cli/installed.ts' };
  const names = { outExtension: { '.js': '.mjs' }, chunkNames: '[name]-[hash]' };
  await build({ ...options, ...names, entryPoints, outdir: directory, splitting: true });
  const outfile = join(directory, 'crash-world.mjs');
  await build({ ...options, entryPoints: ['src/crash-world/main.ts'], outfile });
}

async function guestScript(name: string, script: string, input: string | Buffer): Promise<void> {
  const { status, stderr } = await execCaptured(name, ['sh', '-c', script], { input });
  if (status !== 0) throw new LabError(`installing Otherworld in ${name} failed: ${stderr.trim()}`);
}

/**
 * Arms the guest with its own `otherworld arm`.
 * @throws LabError with what the command said if the guest is not armed afterwards
 */
export async function armGuest(name: string): Promise<void> {
  await lendArmCache(name);
  const { status, stdout, stderr } = await execCaptured(name, ['otherworld', 'arm']);
  if (status !== 0) throw new LabError(`otherworld arm in ${name} failed:\n${stdout}${stderr}`.trimEnd());
  if (!(await isArmed(name)))
    throw new LabError(`otherworld arm in ${name} ended well, but no crash kernel is loaded`);
  await keepArmCache(name);
}

/**
 * Whether a crash kernel is loaded in the guest, in the words of its kernel.
 * @throws LabError if the guest does not say
 */
export async function isArmed(name: string): Promise<boolean> {
  const file = '/sys/kernel/kexec_crash_loaded';
  return (await execChecked(name, ['cat', file], { timeoutSeconds: LOOK_SECONDS })).trim() === '1';
}
