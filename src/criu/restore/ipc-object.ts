import { writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { errnoText } from '../../system/errno.ts';
import { asUser } from '../../system/process-settings.ts';

/** An object of System V as it was made. */
export interface IpcIdentity {
  readonly id: number;
  readonly key: number;
  readonly cuid: number;
  readonly cgid: number;
}

/** How objects of one kind are made and removed. */
export interface IpcMaker {
  /** The call, for messages. */
  readonly call: string;
  /**
   * Written before that call, it is the number of the next object, if it is free (CONFIG_CHECKPOINT_RESTORE).
   */
  readonly nextId: string;
  /** Makes one; a result below zero is an errno with its sign changed. */
  make(): number;
  /** Makes another, whatever it is like. */
  makeAny(): number;
  remove(id: number): void;
}

function showKey(key: number): string {
  return `0x${key.toString(16).padStart(8, '0')}`;
}

/**
 * Makes an object under its number, as its creator. Throws an Error, and leaves none, if its number or key is
 * taken.
 */
export function makeIpc({ id, key, cuid, cgid }: IpcIdentity, maker: IpcMaker): void {
  writeFileSync(maker.nextId, String(id));
  let made = -constants.errno.EPERM;
  try {
    // Who makes an object is its creator for good.
    made = asUser(cuid, cgid, () => maker.make());
  } finally {
    // The number would wait for the next object, whoever makes that.
    if (made < 0) maker.remove(maker.makeAny());
  }
  if (made === id) return;
  if (made >= 0) {
    maker.remove(made);
    throw new Error('its number is taken');
  }
  throw new Error(
    -made === constants.errno.EEXIST
      ? `its key ${showKey(key)} is taken`
      : `${maker.call}: ${errnoText(-made)}`,
  );
}

/** Permissions of an object, by their offsets in the structure that the kernel shows. */
type Permissions = Readonly<Record<'key' | 'uid' | 'gid' | 'cuid' | 'cgid' | 'mode', number>>;

/** What of an object's permissions is not as it has to be, one end of a sentence for each. */
export function permissionDifferences(plan: Permissions, offsets: Permissions, ds: Buffer): string[] {
  const names = ['key', 'uid', 'gid', 'cuid', 'cgid', 'mode'] as const;
  return names.flatMap((name) => {
    const is = ds.readUInt32LE(offsets[name]);
    return is === plan[name] ? [] : [`${name} ${is}, and had ${plan[name]}`];
  });
}

/** Sets owner, group and mode in the structure that the kernel shows. */
export function setPermissions(plan: Permissions, offsets: Permissions, ds: Buffer): void {
  for (const name of ['uid', 'gid', 'mode'] as const) ds.writeUInt32LE(plan[name], offsets[name]);
}
