import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemCalls } from '../../../src/arch/x86-64/system-calls.ts';
import { callProgress } from '../../../src/capture/calls/call-progress.ts';
import { progressTable } from '../../../src/capture/calls/call-progress-table.ts';
import type { KernelStack, StackFrame } from '../../../src/linux/readers/kernel-stack.ts';
import { openFixture, releases } from '../../vmcore/fixtures.ts';

/** The stack of a call: functions from the outside to the inside, of which the last has no frame. */
function stackOf(chain: string, inner: readonly string[] = []): KernelStack {
  if (!chain.includes('>') && inner.length === 0) return stackOf(`${chain}>indirect`);
  const names = ['do_syscall_64', ...chain.split('>')];
  const frames = names.slice(0, -1).map((name, i) => frame(name, names[i + 1]));
  frames.push(...inner.map((name, i) => frame(name, inner[i + 1])));
  return { frames: frames.toReversed(), end: 'user', why: undefined };
}

function frame(name: string, calls: string | undefined): StackFrame {
  return { ip: 1n, sp: 1n, isInterrupted: false, function: name, calls };
}

const kindOf = (call: string, chain: string, inner?: readonly string[]): string =>
  callProgress(call, stackOf(chain, inner), []).kind;

const chainsOf = (text: string | undefined): string[] =>
  (text ?? '').split(/\s+/).filter((one) => one !== '');

describe('the table of how far calls have come', () => {
  it('names calls that exist', () => {
    for (const { calls } of progressTable)
      for (const name of calls.split(' ')) assert.notEqual(systemCalls.number(name), undefined, name);
  });

  it('names functions that a kernel has', () => {
    // Of these, compilers have left parts or variants only, which have longer names.
    const variants = new Set(['link_path_walk', 'do_sigtimedwait', 'indirect']);
    const kernels = releases.map(openFixture);
    const names = progressTable.flatMap(({ notBegun, positionKept, done, operations, lastName }) =>
      [notBegun, positionKept, done, operations, lastName].flatMap((text) => text?.split(/[\s>]+/) ?? []),
    );
    const unknown = new Set(names).difference(variants);
    for (const name of unknown)
      assert.ok(name === '' || kernels.some((kernel) => kernel.symbolMaybe(name) !== undefined), name);
  });

  for (const row of progressTable) {
    it(`means for ${row.calls} what it says`, () => {
      for (const call of row.calls.split(' ')) {
        for (const chain of chainsOf(row.notBegun)) assert.equal(kindOf(call, chain), 'not-begun', chain);
        for (const chain of chainsOf(row.positionKept))
          assert.equal(kindOf(call, chain), 'position-kept', chain);
        for (const chain of chainsOf(row.done)) assert.equal(kindOf(call, chain), 'done', chain);
      }
    });
  }
});

describe('how far a call has come', () => {
  it('is not known without the whole stack', () => {
    const { frames } = stackOf('ksys_read>vfs_read');
    const progress = callProgress('read', { frames, end: 'unknown', why: 'a page is missing' }, []);
    assert.deepEqual(progress, { kind: 'unknown', why: 'a page is missing' });
    assert.equal(callProgress('read', { frames, end: 'kernel-thread', why: undefined }, []).kind, 'unknown');
  });

  it('is nowhere while the kernel is being entered', () => {
    for (const call of ['read', 'kill', 'umask', 'ioctl']) {
      const entering = { ...stackOf('read>read'), frames: [frame('do_syscall_64', 'syscall_trace_enter')] };
      assert.equal(callProgress(call, entering, []).kind, 'not-begun', call);
    }
  });

  it('is not known of a read or write behind the move of the position, or at an unknown place', () => {
    for (const [call, body] of [
      ['read', 'ksys_read'],
      ['write', 'ksys_write'],
      ['readv', 'do_readv'],
      ['writev', 'do_writev'],
    ] as const) {
      for (const callee of ['__f_unlock_pos', 'fput'])
        assert.equal(kindOf(call, `${body}>${callee}`), 'unknown');
    }
    const running: KernelStack = {
      frames: [
        { ...frame('ksys_read', undefined), isInterrupted: true },
        frame('do_syscall_64', 'ksys_read'),
      ],
      end: 'user',
      why: undefined,
    };
    assert.equal(callProgress('read', running, []).kind, 'unknown');
  });

  it('is before the move of the position wherever the file system is', () => {
    const inner = ['vfs_read', 'filemap_read', 'asm_exc_page_fault', 'handle_userfault', 'schedule'];
    assert.equal(kindOf('read', 'ksys_read>vfs_read', inner), 'position-kept');
  });

  it('is not known of a directory that was read', () => {
    const body = '__x64_sys_getdents64>iterate_dir';
    for (const callee of ['touch_atime', 'up_read', '__fsnotify_parent', 'fsnotify'])
      assert.equal(kindOf('getdents64', `${body}>${callee}`), 'unknown', callee);
    assert.equal(kindOf('getdents64', '__x64_sys_getdents64>__f_unlock_pos'), 'unknown');
    assert.equal(kindOf('getdents64', `${body}>indirect`, ['ext4:ext4_readdir', 'filldir64']), 'not-begun');
  });

  it('is not known of epoll_wait that takes events', () => {
    for (const callee of ['ep_done_scan', 'mutex_unlock', 'ep_item_poll', '__put_user_nocheck_4'])
      assert.equal(kindOf('epoll_wait', `do_epoll_wait>${callee}`), 'unknown', callee);
  });

  it('is not known of munmap that has let go of its lock', () => {
    for (const chain of ['__vm_munmap>userfaultfd_unmap_complete', '__vm_munmap>do_vmi_munmap>up_write'])
      assert.equal(kindOf('munmap', chain), 'unknown', chain);
    const inner = ['vms_complete_munmap_vmas', '__mt_destroy'];
    assert.equal(
      kindOf('munmap', '__vm_munmap>do_vmi_munmap>do_vmi_align_munmap>vms_complete_munmap_vmas', inner),
      'unknown',
    );
  });

  it('is not known within a file system, unless that waits for its journal first', () => {
    const operation = 'do_unlinkat>vfs_unlink>indirect';
    assert.equal(kindOf('unlink', operation, ['ext4:ext4_unlink', 'ext4:__ext4_unlink']), 'unknown');
    const begins = ['ext4:ext4_unlink', 'ext4:__ext4_journal_start_sb', 'jbd2:start_this_handle', 'schedule'];
    assert.equal(kindOf('unlink', operation, begins), 'not-begun');
    for (const other of ['iput', 'evict', 'jbd2:jbd2__journal_restart'])
      assert.equal(kindOf('unlink', operation, ['ext4:ext4_unlink', other, ...begins]), 'unknown', other);
    assert.equal(
      kindOf('openat', 'do_filp_open>path_openat>indirect', ['ext4:ext4_create', ...begins]),
      'not-begun',
    );
    assert.equal(kindOf('openat', 'do_filp_open>path_openat>vfs_open'), 'unknown');
  });

  it('is behind the effect where what had the last name is taken apart', () => {
    const evicts = ['iput', 'evict', 'ext4:ext4_evict_inode'];
    assert.equal(kindOf('unlink', 'do_unlinkat>iput', [...evicts, 'ext4:ext4_truncate']), 'done');
    const deleting = stackOf('do_unlinkat>iput', [...evicts, 'ext4:ext4_truncate']);
    assert.equal(callProgress('unlink', deleting, [], true).kind, 'unknown');
    assert.equal(kindOf('unlink', 'do_unlinkat>iput', evicts), 'unknown');
    assert.equal(kindOf('unlink', 'do_unlinkat>dput', [...evicts, 'ext4:ext4_truncate']), 'unknown');
    assert.equal(kindOf('rename', 'do_renameat2>dput', [...evicts, 'ext4:ext4_truncate']), 'unknown');
  });

  it('is the same whether ext4 is a module or in the kernel', () => {
    const begins = ['ext4_mkdir', '__ext4_journal_start_sb', 'start_this_handle'];
    assert.equal(kindOf('mkdir', 'do_mkdirat>vfs_mkdir>indirect', begins), 'not-begun');
    const evicts = ['iput', 'evict', 'ext4_evict_inode', 'ext4_truncate'];
    assert.equal(kindOf('unlink', 'do_unlinkat>iput', evicts), 'done');
  });

  it('is not known where ext4 begins for a file system above it, which has done other things before', () => {
    const below = ['vfs_setxattr', 'ext4:ext4_xattr_set', 'jbd2:start_this_handle', 'schedule'];
    for (const above of ['overlay:ovl_mkdir', 'ovl_mkdir'])
      assert.equal(kindOf('mkdir', 'do_mkdirat>vfs_mkdir>indirect', [above, ...below]), 'unknown');
    const evicts = ['iput', 'evict', 'overlay:ovl_destroy_inode', 'iput', 'evict', 'ext4:ext4_evict_inode'];
    assert.equal(kindOf('unlink', 'do_unlinkat>iput', [...evicts, 'ext4:ext4_truncate']), 'unknown');
  });

  it('is not known of mmap that must not find anything in its place, and may have put it there', () => {
    const [fixed, orNothing] = [[0n, 4096n, 3n, 0x32n] as const, [0n, 4096n, 3n, 0x10_0022n] as const];
    const stack = stackOf('vm_mmap_pgoff>do_mmap', ['do_mmap', 'mmap_region', 'perf_event_mmap']);
    assert.equal(callProgress('mmap', stack, fixed).kind, 'not-begun');
    assert.equal(callProgress('mmap', stack, orNothing).kind, 'unknown');
    const waits = stackOf('vm_mmap_pgoff>down_write_killable');
    assert.equal(callProgress('mmap', waits, orNothing).kind, 'not-begun');
  });

  it('goes by the body of the call, not by what a stacked file system does below it', () => {
    const below = ['overlay:ovl_unlink', 'vfs_unlink', 'down_write'];
    assert.equal(kindOf('unlink', 'do_unlinkat>vfs_unlink>indirect', below), 'unknown');
  });

  it('is not known of what a call of another name does', () => {
    assert.equal(kindOf('rename', 'do_unlinkat>down_write'), 'unknown');
    assert.equal(kindOf('umask', 'ksys_read>vfs_read'), 'unknown');
  });
});
