import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeCacheDirectory, withLock } from './cache.ts';
import { runChecked } from './command.ts';

/** The key pair that logs in to guests of this cache: path of the private key, text of the public one. */
export async function guestKey(): Promise<{ privateKeyPath: string; publicKey: string }> {
  const privateKeyPath = join(makeCacheDirectory('ssh'), 'id_ed25519');
  if (!existsSync(`${privateKeyPath}.pub`)) {
    await withLock('ssh-key', async () => {
      if (existsSync(`${privateKeyPath}.pub`)) return;
      await runChecked('ssh-keygen', [
        '-q',
        '-t',
        'ed25519',
        '-N',
        '',
        '-C',
        'otherworld-lab',
        '-f',
        privateKeyPath,
      ]);
    });
  }
  return { privateKeyPath, publicKey: readFileSync(`${privateKeyPath}.pub`, 'utf8') };
}
