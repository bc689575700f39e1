/**
 * What the functions on a thread's kernel stack mean for its call. Chains are read from the outside to the
 * inside: `do_unlinkat>down_write` says that do_unlinkat has called down_write, which has not returned. A
 * chain counts whole, and begins at the function that makes the call's body; a single name is of a function
 * that it is in. What no chain names stays unknown. The functions are those of 6.1 and 6.12, as compilers
 * left them: one that was inlined is named by its caller.
 */
export interface ProgressRow {
  readonly calls: string;
  /** Arguments with which the row says nothing. */
  readonly unless?: (given: readonly bigint[]) => boolean;
  /** Why a call that is there has not begun. */
  readonly reason: string;
  /** Nothing has happened that making the call again would repeat. */
  readonly notBegun?: string;
  /** It moves bytes of a file, and its position only when this has returned. */
  readonly positionKept?: string;
  /** It has had its effect, and its result is 0. */
  readonly done?: string;
  readonly doneReason?: string;
  /** What calls the file system's operation, which is the whole effect. */
  readonly operations?: string;
  /**
   * Where the last reference to what had a name is given up, behind the effect. (If the call has failed, and
   * somebody else has removed that name in the moment between, it gets 0 all the same.)
   */
  readonly lastName?: string;
}

/** All functions of a list, called by one. */
function calledBy(caller: string, callees: string): string {
  return callees
    .split(/\s+/)
    .map((callee) => `${caller}>${callee}`)
    .join(' ');
}

/** include/uapi/asm-generic/mman-common.h */
export const MAP_FIXED_NOREPLACE = 0x10_0000n;
const waitsForLock = 'it waits for the lock under which it works, or has just got there';
const looksUp = 'it looks up its path, or waits for the directory';
/** Before a name is changed: fs/namei.c. */
const UP_TO_PARENT = '__filename_parentat mnt_want_write down_write';
const NAME = 'lookup_one_qstr_excl';
/** In do_truncate (fs/open.c), which has the inode locked until the size is set. */
const HOLDING_INODE = 'dentry_needs_remove_privs down_write notify_change';
const MAY = 'may_create inode_permission mode_strip_sgid';

const files: readonly ProgressRow[] = [
  {
    calls: 'read',
    reason: 'it waits for its turn at the file',
    notBegun: calledBy('ksys_read', 'fdget_pos __fdget_pos'),
    positionKept: 'ksys_read>vfs_read',
  },
  {
    calls: 'write',
    reason: 'it waits for its turn at the file',
    notBegun: calledBy('ksys_write', 'fdget_pos __fdget_pos'),
    positionKept: 'ksys_write>vfs_write',
  },
  {
    calls: 'readv',
    reason: 'it waits for its turn at the file',
    notBegun: calledBy('do_readv', 'fdget_pos __fdget_pos'),
    positionKept: 'do_readv>vfs_readv',
  },
  {
    calls: 'writev',
    reason: 'it waits for its turn at the file',
    notBegun: calledBy('do_writev', 'fdget_pos __fdget_pos'),
    positionKept: 'do_writev>vfs_writev',
  },
  {
    calls: 'getdents64',
    reason: 'it waits for its turn at the directory, or reads it, and has moved no position yet',
    notBegun: [
      calledBy('__x64_sys_getdents64', 'fdget_pos __fdget_pos'),
      calledBy(
        '__x64_sys_getdents64>iterate_dir',
        'security_file_permission down_read_killable down_write_killable indirect',
      ),
    ].join(' '),
  },
  {
    calls: 'getdents',
    reason: 'it waits for its turn at the directory, or reads it, and has moved no position yet',
    notBegun: [
      calledBy('__x64_sys_getdents', 'fdget_pos __fdget_pos'),
      calledBy(
        '__x64_sys_getdents>iterate_dir',
        'security_file_permission down_read_killable down_write_killable indirect',
      ),
    ].join(' '),
  },
  {
    calls: 'lseek',
    reason: 'it waits for its turn at the file',
    notBegun: calledBy('ksys_lseek', 'fdget_pos __fdget_pos'),
  },
  {
    calls: 'sendfile',
    reason: 'it has not begun to move anything',
    notBegun: calledBy('do_sendfile', 'fdget __fdget rw_verify_area'),
  },
  {
    calls: 'close',
    reason: 'it has not begun',
    done: 'filp_close __x64_sys_close>filp_flush __x64_sys_close>__fput_sync',
    doneReason: 'it has taken its descriptor away',
  },
];

const names: readonly ProgressRow[] = [
  {
    calls: 'unlink unlinkat',
    reason: looksUp,
    notBegun: [
      calledBy('do_unlinkat', `${UP_TO_PARENT} ${NAME} security_path_unlink`),
      calledBy('do_unlinkat>vfs_unlink', 'may_delete down_write security_inode_unlink'),
    ].join(' '),
    operations: 'do_unlinkat>vfs_unlink',
    done: calledBy('do_unlinkat>vfs_unlink', 'd_delete __detach_mounts'),
    doneReason: 'the name is gone',
    lastName: 'do_unlinkat>iput',
  },
  {
    calls: 'rmdir unlinkat',
    reason: looksUp,
    notBegun: [
      calledBy('do_rmdir', `${UP_TO_PARENT} ${NAME} security_path_rmdir`),
      calledBy('do_rmdir>vfs_rmdir', 'may_delete down_write security_inode_rmdir'),
    ].join(' '),
    operations: 'do_rmdir>vfs_rmdir',
    done: calledBy('do_rmdir>vfs_rmdir', 'shrink_dcache_parent __detach_mounts d_delete'),
    doneReason: 'the directory is gone',
  },
  {
    calls: 'mkdir mkdirat',
    reason: looksUp,
    notBegun: [
      calledBy('do_mkdirat', 'filename_create security_path_mkdir'),
      calledBy('do_mkdirat>vfs_mkdir', `${MAY} security_inode_mkdir`),
    ].join(' '),
    operations: 'do_mkdirat>vfs_mkdir',
    done: 'do_mkdirat>vfs_mkdir>fsnotify',
    doneReason: 'the directory is there',
  },
  {
    calls: 'mknod mknodat',
    reason: looksUp,
    notBegun: [
      calledBy('do_mknodat', 'filename_create security_path_mknod'),
      calledBy('do_mknodat>vfs_mknod', `${MAY} security_inode_mknod devcgroup_check_permission`),
      calledBy('do_mknodat>vfs_create', `${MAY} security_inode_create`),
    ].join(' '),
    operations: 'do_mknodat>vfs_mknod do_mknodat>vfs_create',
    done: 'do_mknodat>vfs_mknod>fsnotify do_mknodat>vfs_create>fsnotify',
    doneReason: 'the file is there',
  },
  {
    calls: 'symlink symlinkat',
    reason: looksUp,
    notBegun: [
      calledBy('do_symlinkat', 'filename_create security_path_symlink'),
      calledBy('do_symlinkat>vfs_symlink', 'may_create inode_permission security_inode_symlink'),
    ].join(' '),
    operations: 'do_symlinkat>vfs_symlink',
    done: 'do_symlinkat>vfs_symlink>fsnotify',
    doneReason: 'the link is there',
  },
  {
    calls: 'link linkat',
    reason: looksUp,
    notBegun: [
      calledBy('do_linkat', 'filename_lookup filename_create may_linkat security_path_link'),
      calledBy('do_linkat>vfs_link', 'may_create inode_permission security_inode_link down_write'),
    ].join(' '),
    operations: 'do_linkat>vfs_link',
    done: 'do_linkat>vfs_link>fsnotify',
    doneReason: 'the link is there',
  },
  {
    calls: 'rename renameat renameat2',
    reason: looksUp,
    notBegun: [
      calledBy(
        'do_renameat2',
        `${UP_TO_PARENT} ${NAME} mutex_lock lock_two_directories security_path_rename`,
      ),
      calledBy(
        'do_renameat2>vfs_rename',
        'may_delete may_create inode_permission security_inode_rename lock_two_nondirectories down_write',
      ),
    ].join(' '),
    operations: 'do_renameat2>vfs_rename',
    done: calledBy(
      'do_renameat2>vfs_rename',
      'fsnotify_move fsnotify fsnotify_get_cookie d_move d_exchange shrink_dcache_parent __detach_mounts',
    ),
    doneReason: 'the name has been changed',
  },
  {
    calls: 'open openat openat2 creat',
    reason: looksUp,
    notBegun: [
      calledBy('do_sys_openat2', 'build_open_flags getname get_unused_fd_flags'),
      calledBy(
        'do_filp_open>path_openat',
        `alloc_empty_file path_init link_path_walk lookup_fast handle_dots step_into try_to_unlazy
         mnt_want_write down_write down_read d_lookup d_alloc_parallel inode_permission
         security_path_mknod security_inode_create`,
      ),
      calledBy('do_filp_open>path_openat>do_truncate', HOLDING_INODE),
    ].join(' '),
    operations: 'do_filp_open>path_openat',
  },
  {
    calls: 'chdir chroot',
    reason: looksUp,
    notBegun: [
      calledBy('__x64_sys_chdir', 'user_path_at user_path_at_empty'),
      calledBy('__x64_sys_chroot', 'user_path_at user_path_at_empty'),
    ].join(' '),
  },
  {
    calls: 'truncate ftruncate',
    reason: waitsForLock,
    notBegun: [
      calledBy('do_sys_truncate', 'user_path_at user_path_at_empty'),
      calledBy('do_ftruncate', '__percpu_down_read security_file_truncate'),
      calledBy('do_sys_ftruncate', 'fdget __fdget __percpu_down_read security_path_truncate'),
      calledBy('vfs_truncate', 'mnt_want_write inode_permission security_path_truncate'),
      calledBy('do_truncate', HOLDING_INODE),
    ].join(' '),
  },
];

const others: readonly ProgressRow[] = [
  {
    calls: 'epoll_wait epoll_pwait epoll_pwait2',
    reason: 'it sleeps, or waits for its turn, and has taken no events',
    notBegun: calledBy('do_epoll_wait', 'schedule_hrtimeout_range mutex_lock'),
  },
  {
    calls: 'munmap',
    reason: 'it has not taken the memory away yet',
    notBegun: [
      '__vm_munmap>down_write_killable',
      '__vm_munmap>do_vmi_munmap>mas_find',
      calledBy('__vm_munmap>do_vmi_munmap>do_vmi_align_munmap', 'vms_gather_munmap_vmas mas_store_gfp'),
      '__vm_munmap>do_mas_munmap>mas_find',
      calledBy(
        '__vm_munmap>do_mas_munmap>do_mas_align_munmap',
        'mas_preallocate __split_vma mas_walk mas_store_gfp userfaultfd_unmap_prep mas_store_prealloc',
      ),
    ].join(' '),
  },
  {
    calls: 'mmap',
    reason: waitsForLock,
    notBegun: calledBy('vm_mmap_pgoff', 'security_mmap_file down_write_killable'),
  },
  {
    calls: 'mmap',
    // A second one would find what the first has put there.
    unless: ([, , , flags = 0n]) => (flags & MAP_FIXED_NOREPLACE) !== 0n,
    reason: 'it has the memory locked, and puts there the same again',
    notBegun: 'vm_mmap_pgoff>do_mmap',
  },
  {
    calls: 'brk',
    reason: waitsForLock,
    notBegun: '__do_sys_brk>down_write_killable',
  },
  {
    calls: 'mremap',
    reason: waitsForLock,
    notBegun: '__do_sys_mremap>down_write_killable',
  },
  { calls: 'shmdt', reason: waitsForLock, notBegun: 'ksys_shmdt>down_write_killable' },
  {
    calls: 'fork vfork clone clone3',
    reason: 'the child is still being made, and nobody knows of it',
    notBegun: 'kernel_clone>copy_process',
  },
  {
    calls: 'wait4 waitid',
    reason: 'it was woken, and has taken nothing yet',
    notBegun: 'do_wait>schedule',
  },
  {
    calls: 'accept accept4',
    reason: 'it was woken, and has taken nothing yet',
    notBegun: 'inet_csk_accept>schedule_timeout __skb_wait_for_more_packets>schedule_timeout',
  },
  {
    calls: 'rt_sigtimedwait',
    reason: 'it was woken, and has taken nothing yet',
    notBegun: 'do_sigtimedwait>schedule_hrtimeout_range',
  },
  { calls: 'fcntl', reason: 'it was woken, and has no lock yet', notBegun: 'fcntl_setlk>schedule' },
];

/**
 * Code that waits until a transaction of ext4 may begin (fs/jbd2/transaction.c). One of ext4's operations on
 * a directory has one transaction, and changes nothing before.
 */
export const beginning: ReadonlySet<string> = new Set(['start_this_handle']);
/** What has a transaction of its own, besides the operation's or within it. */
export const otherTransactions: ReadonlySet<string> = new Set(
  'iput evict dput __dentry_kill jbd2__journal_restart'.split(' '),
);
/** Where ext4 takes apart a file that has no name left (ext4_evict_inode, fs/ext4/inode.c). */
export const takingApart: ReadonlySet<string> = new Set(
  'ext4_truncate ext4_free_inode ext4_xattr_delete_inode'.split(' '),
);
/** What an inode goes through before its file system gets it (fs/inode.c). */
export const beforeEviction: ReadonlySet<string> = new Set(['iput', 'iput_final', 'evict']);

/** The table. A call may be in several rows. */
export const progressTable: readonly ProgressRow[] = [...files, ...names, ...others];
