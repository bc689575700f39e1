import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, flags, pointer, struct } from '../vmcore/view.ts';
import { assocArrayLeaves } from './assoc-array.ts';

/** `struct key` (include/linux/key.h); a keyring keeps pointers to its keys in an associative array. */
export const keyStruct = struct('key', {
  flags,
  type: pointer,
  description: pointer,
  keys: addressOf('keys'),
});
/** `struct key_type` (include/linux/key-type.h). */
export const keyType = struct('key_type', { name: pointer });
/** Bits of `key.flags` (KEY_FLAG_*) of keys that nobody can use any more. */
export const KEY_GONE = { dead: 0, revoked: 1, invalidated: 5 } as const;
/**
 * Longest description that is read for a message; keyrings may be nested six deep (security/keys/keyring.c).
 */
const MAX_DESCRIPTION = 128;
const MAX_DEPTH = 6;

export interface KeyName {
  /** `user`, `logon`, `keyring` ... */
  readonly type: string;
  readonly description: string;
}

/**
 * All usable keys in a keyring and in the keyrings that are linked to it; keyrings themselves are left out.
 * `keyring` is the address of its `struct key`, 0n for none. Throws a VmcoreError if it is damaged.
 */
export function sessionKeys(kernel: Kernel, keyring: bigint): KeyName[] {
  const Key = kernel.bind(keyStruct);
  const keys: KeyName[] = [];
  const seen = new Set<bigint>();
  const walk = (address: bigint, depth: number): void => {
    if (address === 0n || depth > MAX_DEPTH || seen.has(address)) return;
    seen.add(address);
    for (const leaf of assocArrayLeaves(kernel, Key.at(address).keys)) {
      const key = Key.at(leaf);
      if (Object.values(KEY_GONE).some((bit) => key.flags.has(bit))) continue;
      const type = kernel.memory.cstring(kernel.bind(keyType).at(key.type).name, MAX_DESCRIPTION);
      if (type === 'keyring') walk(leaf, depth + 1);
      else keys.push({ type, description: kernel.memory.cstring(key.description, MAX_DESCRIPTION) });
    }
  };
  walk(keyring, 0);
  return keys;
}
