import { spawnSync } from 'node:child_process';

/** A user of this system: who owns a process that a rule names. */
export interface User {
  readonly name: string;
  readonly uid: number;
}

/** As many as a uid_t names; the last one means "no user" (-1). */
const HIGHEST_UID = 0xffff_fffe;

/**
 * The user with a name or number, as the system's databases know it (getent(1): LDAP and the like too);
 * undefined if there is none. A number without a name is a user all the same: containers' and dynamic users
 * have none.
 */
export function findUser(text: string): User | undefined {
  const { status, stdout } = spawnSync('getent', ['passwd', '--', text], { encoding: 'utf8' });
  const [name, , uid] = status === 0 ? stdout.trim().split(':') : [];
  if (name !== undefined && uid !== undefined) return { name, uid: Number(uid) };
  return /^\d+$/.test(text) && Number(text) <= HIGHEST_UID ? { name: text, uid: Number(text) } : undefined;
}
