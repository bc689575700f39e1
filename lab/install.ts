import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { keepArmCache, lendArmCache } from './arm-cache.ts';
import { execCaptured } from './channel.ts';
import { LabError } from './error.ts';
import { repositoryRoot } from './node-tree.ts';

/** Where Otherworld lives on a machine; Node.js and the libraries are in the guest's image already. */
const HOME = '/usr/lib/otherworld';

/** What of the repository a machine needs besides `node_modules`. */
const PARTS = ['package.json', 'LICENSE', 'src', 'lab', 'sdk'];

const COMMAND = `#!/bin/sh
exec ${HOME}/node_modules/node/bin/node ${HOME}/src/cli/main.ts "$@"
`;

/**
 * Puts the sources of this repository into a guest and makes `otherworld` a command there, as a package would.
 * @throws LabError if the guest does not take them
 */
export async function installOtherworld(name: string): Promise<void> {
  const parts = PARTS.filter((part) => existsSync(join(repositoryRoot, part)));
  const tar = spawnSync('tar', ['-c', '-C', repositoryRoot, '--owner=0', '--group=0', ...parts], {
    maxBuffer: 256 * 2 ** 20,
  });
  if (tar.status !== 0) throw new LabError(`packing the sources failed: ${tar.stderr.toString()}`);
  await guestScript(name, `cd ${HOME} && rm -rf ${PARTS.join(' ')} && tar -xf -`, tar.stdout);
  await guestScript(name, 'cat > /usr/bin/otherworld && chmod 755 /usr/bin/otherworld', COMMAND);
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

/** Whether a crash kernel is loaded in the guest, in the words of its kernel. */
export async function isArmed(name: string): Promise<boolean> {
  const { stdout } = await execCaptured(name, ['cat', '/sys/kernel/kexec_crash_loaded'], {
    timeoutSeconds: 30,
  });
  return stdout.trim() === '1';
}
