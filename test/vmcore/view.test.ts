import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AddressError, BindError } from '../../src/vmcore/errors.ts';
import {
  addressOf,
  array,
  bool,
  bytes,
  cstring,
  embed,
  type Field,
  flags,
  optional,
  pageAddress,
  pointer,
  s32,
  struct,
  u16,
  u32,
  u64,
  uint,
  ulongNumber,
} from '../../src/vmcore/view.ts';
import { openFixture, openPatched, word } from './fixtures.ts';

const listHead = struct('list_head', { next: pointer, prev: pointer });
const kernel = openFixture('debian13');
const init = kernel.symbol('init_task');

describe('a typed view', () => {
  const task = struct('task_struct', {
    pid: s32,
    comm: cstring,
    commBytes: bytes.at('comm'),
    tasks: embed(listHead),
    tasksAddress: addressOf('tasks'),
    usage: u32,
    blocked: array(u64).at('blocked.sig'),
    firstBlocked: u64.at('blocked.sig[0]'),
    thp: optional(u32.at('no_such_member')),
    flags: u32.at('no_such_member', 'flags'),
  });
  const Task = kernel.bind(task);

  it('reads members as the types that were declared', () => {
    const view = Task.at(init);
    assert.equal(view.address, init);
    assert.equal(view.pid, 0);
    assert.equal(view.comm, 'swapper/0');
    assert.equal(view.commBytes.length, 16);
    assert.equal(view.usage, 2);
    assert.deepEqual(view.blocked, [view.firstBlocked]);
    assert.equal(typeof view.tasks.next, 'bigint');
  });

  it('has undefined for an optional member that the kernel lacks, and takes the first path that it has', () => {
    assert.equal(Task.at(init).thp, undefined);
    assert.equal(Task.has('thp'), false);
    assert.equal(Task.has('pid'), true);
    assert.notEqual(Task.at(init).flags & 0x0020_0000, 0, 'swapper is a kernel thread');
  });

  it('takes another field where the kernel has not the first, of another size too', () => {
    const either = struct('task_struct', {
      none: u16.at('no_such_member', 'nor_this_one').or(s32.at('pid')),
      one: s32.at('pid').or(u16.at('no_such_member')),
      none_at_all: optional(u32.at('no_such_member').or(u32.at('nor_this_one'))),
      links: addressOf('no_such_member').or(addressOf('tasks')),
    });
    const Either = kernel.bind(either);
    const first = Task.containerOf(Task.at(init).tasks.next, 'tasks').address;
    const { none, one, none_at_all, links } = Either.at(first);
    assert.deepEqual([none, one, none_at_all], [1, 1, undefined]);
    assert.equal(links, first + BigInt(Task.offsetOf('tasks')));
    assert.deepEqual([Either.has('none'), Either.has('none_at_all')], [true, false]);
    assert.equal(Either.offsetOf('none'), Task.offsetOf('pid'));
    Either.bindAll();
  });

  it('reads a number whose size is left open, and refuses one of 64 bits for it', () => {
    const open = struct('task_struct', { pid: uint, policy: uint, wide: uint.at('sched_reset_on_fork') });
    const view = kernel.bind(open).at(init);
    assert.deepEqual([view.pid, view.policy, view.wide], [0, 0, 0]);
    assert.equal(kernel.bind(struct('task_struct', { flags: uint })).at(init).flags, Task.at(init).flags);
    assert.throws(
      () => kernel.bind(struct('task_struct', { utime: uint })).at(init).utime,
      /utime .* has 8 bytes, not 4/,
    );
  });

  it('finds the structure around a member', () => {
    const first = Task.containerOf(Task.at(init).tasks.next, 'tasks');
    assert.equal(first.pid, 1);
    assert.equal(first.tasksAddress, Task.at(init).tasks.next);
    assert.equal(Task.at(init).tasks.address, init + BigInt(Task.offsetOf('tasks')));
  });

  it('is bound once for each declaration', () => {
    assert.equal(kernel.bind(task), Task);
    assert.equal(Task.size, kernel.sizeOf('task_struct'));
  });

  it('reads the memory of its own kernel where several have their declarations in common', () => {
    const place = kernel.memory.translate(init);
    const patch = (member: string, bytes: Buffer) => ({ physical: place + Task.offsetOf(member), bytes });
    const changed = [patch('comm', Buffer.from('renamed\0')), patch('tasks', word(0x1234n))];
    const [one, other] = [openPatched('debian13', []), openPatched('debian13', changed)];
    assert.equal(one.layouts, other.layouts);
    const seen = ({ comm, tasks }: ReturnType<typeof Task.at>) => [comm, tasks.next];
    for (let i = 0; i < 2; i++) {
      assert.deepEqual(seen(one.bind(task).at(init)), ['swapper/0', Task.at(init).tasks.next]);
      assert.deepEqual(seen(other.bind(task).at(init)), ['renamed', 0x1234n]);
    }
    assert.equal(
      other.bind(task).containerOf(init + BigInt(Task.offsetOf('tasks')), 'tasks').comm,
      'renamed',
    );
  });

  it('sees through anonymous structures and unions, and through structures of one member', () => {
    assert.equal(kernel.hasMember('page', 'lru.next'), true);
    assert.equal(
      kernel.bind(struct('task_struct', { usage: u32.at('usage.refs.counter') })).at(init).usage,
      2,
    );
  });

  it('reads bit fields', () => {
    const flags = kernel.bind(struct('task_struct', { in_execve: bool, in_iowait: u32 })).at(init);
    assert.equal(flags.in_execve, false);
    assert.equal(flags.in_iowait, 0);
  });
});

describe('binding', () => {
  const isRefusal = (message: RegExp) => (error: unknown) => {
    assert.ok(error instanceof BindError);
    assert.match(error.message, message);
    assert.match(error.message, /6\.12/);
    return true;
  };
  const refuses = (field: Field<unknown>, message: RegExp, key = 'pid'): void => {
    const bound = kernel.bind(struct('task_struct', { pid: s32, [key]: field }));
    const read = () => bound.at(init)[key];
    assert.throws(read, isRefusal(message));
    assert.throws(read, isRefusal(message), 'each time');
    assert.throws(() => bound.bindAll(), isRefusal(message));
  };

  it('names what is missing or other than declared', () => {
    assert.throws(
      () => kernel.bind(struct('no_such_struct', {})),
      isRefusal(/struct no_such_struct .* does not exist/),
    );
    refuses(u32, /task_struct\.nothing .* does not exist/, 'nothing');
    refuses(u32.at('nor_this').or(s32.at('nothing')), /task_struct\.nor_this .* does not exist/, 'other');
    refuses(u64, /pid .* has 4 bytes, not 8/);
    refuses(u32, /comm .* is array, not an integer/, 'comm');
    refuses(cstring, /pid .* is integer, not an array of char/);
    refuses(embed(listHead), /pid .* not a structure/);
    refuses(array(u16, 17).at('comm'), /comm .* has 16 elements, not 17/, 'c');
    refuses(pointer, /pid .* has 4 bytes, not 8 as a pointer/);
  });

  it('fails for nobody who does not read what is missing', () => {
    const Task = kernel.bind(struct('task_struct', { nothing: u32, comm: u64, pid: s32 }));
    assert.equal(Task.at(init).pid, 0);
    assert.deepEqual([Task.has('nothing'), Task.has('pid')], [false, true]);
    assert.throws(() => Task.offsetOf('nothing'), isRefusal(/task_struct\.nothing .* does not exist/));
  });
});

describe('reading', () => {
  const Task = kernel.bind(struct('task_struct', { pid: s32 }));

  it('fails with the address and the member where memory is not in the dump', () => {
    assert.throws(
      () => Task.at(0xffff_ffff_ffff_0000n).pid,
      (error: unknown) => error instanceof AddressError && /task_struct\.pid/.test(error.message),
    );
    assert.throws(
      () => Task.at(0n).pid,
      /reading task_struct\.pid: address 0x[0-9a-f]+ is not a kernel address/,
    );
    assert.throws(() => Task.at(kernel.physicalToVirtual(2 ** 45)).pid, AddressError);
  });

  it('takes a set of flags for no number, whatever bits are set', () => {
    const at = init + BigInt(kernel.bind(struct('task_struct', { flags: u32 })).offsetOf('atomic_flags'));
    const physical = kernel.memory.translate(at);
    const words = struct('task_struct', { atomic_flags: flags, flags });
    const of = (value: bigint) =>
      openPatched('debian13', [{ physical, bytes: word(value) }])
        .bind(words)
        .at(init).atomic_flags;
    const wide = of(0x8057_ffff_c000_0009n);
    const set = Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => wide.has(bit));
    assert.deepEqual([set.slice(0, 4), set.slice(-4), set.length], [[0, 3, 30, 31], [50, 52, 54, 63], 26]);
    assert.equal(String(wide), '0x8057ffffc0000009');
    assert.deepEqual(
      [4, 3, 31, 32, 63].map((bit) => of(8n).isBelow(bit)),
      [true, false, true, true, true],
    );
    assert.deepEqual(
      [31, 32, 40, 41].map((bit) => of(1n << 40n).isBelow(bit)),
      [false, false, false, true],
    );
    assert.equal(kernel.bind(words).at(init).flags.has(21), true, 'swapper is a kernel thread');
    assert.throws(
      () => kernel.bind(struct('task_struct', { comm: flags })).at(init).comm,
      /comm .* is array of 16 bytes, not a word of flags/,
    );
  });

  it('refuses a number that no sound kernel holds', () => {
    const physical = kernel.memory.translate(
      init + BigInt(kernel.bind(struct('task_struct', { flags: u32 })).offsetOf('atomic_flags')),
    );
    const patched = openPatched('debian13', [{ physical, bytes: word(0x7fff_0000_0000_0000n) }]);
    const view = patched.bind(struct('task_struct', { atomic_flags: ulongNumber })).at(init);
    assert.throws(() => view.atomic_flags, /task_struct\.atomic_flags.* far too large/);
  });

  it('takes the address of a page up to where user space ends with five levels, and nothing between pages there', () => {
    const flags = kernel.bind(struct('task_struct', { flags: u32 })).offsetOf('atomic_flags');
    const physical = kernel.memory.translate(init + BigInt(flags));
    const page = struct('task_struct', { page: pageAddress.at('atomic_flags') });
    const read = (value: bigint): number =>
      openPatched('debian13', [{ physical, bytes: word(value) }])
        .bind(page)
        .at(init).page;
    assert.equal(BigInt(read(0x80_0000_0000_1000n)), 0x80_0000_0000_1000n);
    assert.equal(read(0x7fff_ffff_e001n), 0x7fff_ffff_e001);
    assert.throws(() => read(0x80_0000_0000_1001n), /far too large/);
    assert.throws(() => read(0x180_0000_0000_1000n), /far too large/);
  });
});
