import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, struct } from '../vmcore/view.ts';
import { inodeStruct } from './fs.ts';
import { fsnotifyMarkConnectorStruct } from './fsnotify-backend.ts';
import { hlistForEachEntry } from './list.ts';

/**
 * `struct dnotify_mark` (fs/notify/dnotify/dnotify.c); other groups' marks begin with a fsnotify_mark as
 * well.
 */
export const dnotifyMark = struct('dnotify_mark', {
  group: pointer.at('fsn_mark.group'),
  obj_list: addressOf('fsn_mark.obj_list'),
  dn: pointer,
});
export const dnotifyStruct = struct('dnotify_struct', {
  next: pointer.at('dn_next'),
  file: pointer.at('dn_filp'),
});

const MAX_MARKS = 1 << 16;

/**
 * Whether an open directory (`struct file` and its inode, by address) sends signals about changes (fcntl
 * F_NOTIFY). Throws a ContainerError if the list of its marks is damaged.
 */
export function isDnotified(kernel: Kernel, file: bigint, inode: bigint): boolean {
  const group = kernel.symbolMaybe('dnotify_group');
  const { i_fsnotify_marks: connector } = kernel.bind(inodeStruct).at(inode);
  if (group === undefined || connector === 0n || !kernel.hasMember('dnotify_mark', 'dn')) return false;
  const dnotify = kernel.memory.pointer(group);
  const { list } = kernel.bind(fsnotifyMarkConnectorStruct).at(connector);
  for (const mark of hlistForEachEntry(kernel, list, kernel.bind(dnotifyMark), 'obj_list', MAX_MARKS)) {
    if (mark.group !== dnotify) continue;
    let at = mark.dn;
    for (let i = 0; at !== 0n; i++) {
      if (i >= MAX_MARKS)
        throw new ContainerError('dnotify_struct', mark.dn, 'is in a list that does not end');
      const entry = kernel.bind(dnotifyStruct).at(at);
      if (entry.file === file) return true;
      at = entry.next;
    }
  }
  return false;
}
