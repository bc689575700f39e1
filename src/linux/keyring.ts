import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, array, flags, pointer, struct, ulongNumber } from '../vmcore/view.ts';

/** `struct key` (include/linux/key.h); a keyring keeps pointers to its keys in an associative array. */
export const keyStruct = struct('key', {
  flags,
  type: pointer,
  description: pointer,
  keys: addressOf('keys'),
});
export const keyType = struct('key_type', { name: pointer });
export const assocArray = struct('assoc_array', {
  root: pointer,
  leaves: ulongNumber.at('nr_leaves_on_tree'),
});
export const assocArrayNode = struct('assoc_array_node', { slots: array(pointer) });
export const assocArrayShortcut = struct('assoc_array_shortcut', { next_node: pointer });

/** Low bits of a pointer in the array (include/linux/assoc_array_priv.h): node or shortcut, and which; of a leaf: a keyring. */
const META = 1n;
const SUBTYPE = 2n;
/** Bits of `key.flags` (KEY_FLAG_*) of keys that nobody can use any more. */
export const KEY_GONE = { dead: 0, revoked: 1, invalidated: 5 } as const;
/** Longest description that is read for a message; keyrings may be nested six deep (security/keys/keyring.c). */
const MAX_DESCRIPTION = 128;
const MAX_DEPTH = 6;
const MAX_KEYS = 1 << 16;

export interface KeyName {
  /** `user`, `logon`, `keyring` ... */
  readonly type: string;
  readonly description: string;
}

/** Pointers to the keys in an associative array. Throws a ContainerError if it holds more than it says. */
function leavesOf(kernel: Kernel, address: bigint): bigint[] {
  const { root, leaves } = kernel.bind(assocArray).at(address);
  if (leaves > MAX_KEYS) throw new ContainerError('assoc_array', address, `has ${leaves} leaves`);
  const found: bigint[] = [];
  const queue = [root];
  for (let steps = 0; queue.length > 0; steps++) {
    if (steps > MAX_KEYS * 4 || found.length > leaves)
      throw new ContainerError('assoc_array', address, `has more than its ${leaves} leaves`);
    const at = queue.pop() ?? 0n;
    const target = at & ~(META | SUBTYPE);
    if (target === 0n) continue;
    if ((at & META) === 0n) found.push(target);
    else if ((at & SUBTYPE) !== 0n) queue.push(kernel.bind(assocArrayShortcut).at(target).next_node);
    else queue.push(...kernel.bind(assocArrayNode).at(target).slots);
  }
  return found;
}

/**
 * All usable keys in a keyring and in the keyrings that are linked to it; keyrings themselves are left out. `keyring` is the address
 * of its `struct key`, 0n for none. Throws a VmcoreError if it is damaged.
 */
export function sessionKeys(kernel: Kernel, keyring: bigint): KeyName[] {
  const Key = kernel.bind(keyStruct);
  const keys: KeyName[] = [];
  const seen = new Set<bigint>();
  const walk = (address: bigint, depth: number): void => {
    if (address === 0n || depth > MAX_DEPTH || seen.has(address)) return;
    seen.add(address);
    for (const leaf of leavesOf(kernel, Key.at(address).keys)) {
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
