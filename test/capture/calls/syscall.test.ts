import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemCalls } from '../../../src/arch/x86-64/system-calls.ts';
import { decideSyscall, type SyscallState, type Transfer } from '../../../src/capture/calls/syscall.ts';
import { appends, notTwice, withoutPosition } from '../../../src/capture/calls/syscall-repeat.ts';
import { syscallRow, syscallTable } from '../../../src/capture/calls/syscall-table.ts';
import { threadOf } from '../../criu/processes.ts';

const ENOSYS = -38n;

function inCall(name: string, over: Partial<SyscallState> = {}): SyscallState {
  assert.notEqual(systemCalls.number(name), undefined, `${name} is a system call`);
  return {
    call: name,
    ax: ENOSYS,
    activity: 'asleep',
    progress: { kind: 'unknown', why: undefined },
    known: undefined,
    panicked: false,
    interruptedByHandler: false,
    handlerPending: false,
    futex: undefined,
    ownsFutex: undefined,
    transfer: undefined,
    isOpen: true,
    isOnlyUser: false,
    hasSocketTimeout: false,
    isBeforeExec: false,
    wokenBy: undefined,
    notTwice: undefined,
    timeLeft: undefined,
    ...over,
  };
}

function transfer(over: Partial<Transfer>): Transfer {
  return {
    through: 'pipe',
    direction: 'write',
    append: false,
    requestedBytes: 1 << 20,
    doneBytes: undefined,
    waitsForMore: false,
    ...over,
  };
}

const outcome = (state: SyscallState): string => decideSyscall(state).outcome;

describe('the table of system calls', () => {
  it('names each call once, and only calls that exist', () => {
    const names = syscallTable.flatMap(({ calls }) => calls.split(/\s+/));
    assert.deepEqual(
      names.filter((name) => systemCalls.number(name) === undefined),
      [],
    );
    assert.equal(new Set(names).size, names.length);
  });

  it('treats what it does not name as something that must not happen twice', () => {
    assert.equal(syscallRow('bpf').class, 'once');
    assert.equal(syscallRow('syscall 999').class, 'once');
  });

  it('numbers calls as the kernel does', () => {
    assert.equal(systemCalls.name(0), 'read');
    assert.equal(systemCalls.name(334), 'rseq');
    assert.equal(systemCalls.name(435), 'clone3');
    assert.equal(systemCalls.name(400), 'syscall 400');
  });
});

describe('a thread that was', () => {
  it('in no system call goes on where it was', () => {
    assert.equal(outcome({ ...inCall('read'), call: undefined, ax: 5n, activity: 'user' }), 'resume');
  });

  it('on its way out with a result gets it', () => {
    const decision = decideSyscall(inCall('read', { ax: 17n, activity: 'running' }));
    assert.deepEqual(decision, { outcome: 'result', value: 17n, reason: 'it had its result' });
    assert.equal(outcome(inCall('open', { ax: -2n })), 'result');
  });

  it('asleep in any call that only waits makes it again', () => {
    for (const name of ['epoll_wait', 'poll', 'nanosleep', 'accept4', 'wait4', 'semop', 'ioctl']) {
      assert.equal(outcome(inCall(name)), 'restart', name);
    }
  });

  it('waiting for a disk makes a call again that changes nothing the second time', () => {
    for (const name of ['pread64', 'pwrite64', 'fsync', 'stat', 'openat', 'munmap', 'chmod', 'dup2']) {
      assert.equal(outcome(inCall(name, { activity: 'blocked' })), 'restart', name);
    }
  });

  it('in a call whose arguments make it one that must not happen twice makes it again only from its sleep', () => {
    const state = { notTwice: 'it must not exist' };
    assert.equal(outcome(inCall('openat', { ...state, activity: 'blocked' })), 'in-doubt');
    assert.equal(outcome(inCall('openat', { ...state, activity: 'running' })), 'in-doubt');
    assert.equal(outcome(inCall('openat', state)), 'restart');
  });

  it('in a call that answers with what was set before, or goes on from where it was, is in doubt if it ran', () => {
    for (const name of ['umask', 'personality', 'chdir', 'chroot', 'bind', 'close_range', 'seccomp']) {
      assert.equal(outcome(inCall(name, { activity: 'running' })), 'in-doubt', name);
    }
  });

  it('in close has closed what is not open, and never closes what may be another thread’s', () => {
    const closed = decideSyscall(inCall('close', { isOpen: false, activity: 'blocked' }));
    assert.deepEqual(closed, { outcome: 'result', value: 0n, reason: 'its descriptor is closed' });
    for (const activity of ['asleep', 'blocked', 'running'] as const) {
      assert.equal(outcome(inCall('close', { activity })), 'in-doubt', activity);
    }
  });

  it('in close of an open descriptor closes it again, if nobody else takes and gives back any', () => {
    for (const activity of ['blocked', 'running'] as const)
      assert.equal(outcome(inCall('close', { activity, isOnlyUser: true })), 'restart', activity);
  });

  it('in a call that has certainly not begun makes it again, whatever it is', () => {
    const progress = { kind: 'not-begun', reason: 'it waits for the directory' } as const;
    for (const name of [
      'rename',
      'unlink',
      'clone',
      'sendfile',
      'accept4',
      'close',
      'umask',
      'write',
      'kill',
    ])
      assert.equal(outcome(inCall(name, { activity: 'blocked', progress })), 'restart', name);
    const creating = { notTwice: 'it must not exist', activity: 'blocked', progress } as const;
    assert.equal(outcome(inCall('openat', creating)), 'restart');
    assert.equal(outcome(inCall('exit_group', { activity: 'running', progress })), 'refuse');
    assert.equal(outcome(inCall('unlink', { activity: 'running', panicked: true, progress })), 'in-doubt');
  });

  it('in a call that has certainly had its effect gets its result', () => {
    const progress = { kind: 'done', reason: 'the name is gone' } as const;
    const decision = decideSyscall(inCall('unlink', { activity: 'blocked', progress }));
    assert.deepEqual(decision, { outcome: 'result', value: 0n, reason: 'the name is gone' });
  });

  it('in a call whose result the kernel shows gets that, and does not make it again', () => {
    const known = { value: 0n, reason: 'nothing is mapped there any more' };
    const decision = decideSyscall(inCall('munmap', { activity: 'running', known, notTwice: 'threads' }));
    assert.deepEqual(decision, { outcome: 'result', ...known });
  });

  it('in a call that nothing names is in doubt: the new kernel would not know how it goes on', () => {
    assert.equal(outcome(inCall('restart_syscall')), 'in-doubt');
    for (const activity of ['asleep', 'blocked', 'running'] as const) {
      const { outcome: decided, reason } = decideSyscall(inCall('io_destroy', { activity }));
      assert.equal(decided, 'refuse');
      assert.match(reason, /requests in flight/);
    }
  });

  it('in a call that must not happen twice is in doubt, whether on a CPU or waiting for a disk', () => {
    for (const name of ['rename', 'unlink', 'clone', 'kill', 'mkdir']) {
      assert.equal(outcome(inCall(name, { activity: 'blocked' })), 'in-doubt', name);
      assert.equal(outcome(inCall(name, { activity: 'running' })), 'in-doubt', name);
    }
  });

  it('in the call that killed the kernel never makes it again, and is in doubt unless its result is known', () => {
    const killed = { activity: 'running', panicked: true } as const;
    for (const name of ['write', 'stat', 'rename', 'clone']) {
      assert.equal(outcome(inCall(name, killed)), 'in-doubt', name);
    }
    assert.equal(outcome(inCall('close', { ...killed, isOpen: false })), 'result');
    assert.equal(outcome(inCall('read', { ...killed, ax: 5n })), 'result');
    assert.equal(outcome(inCall('execve', killed)), 'refuse');
  });

  it('that has not begun to replace the program calls it again, wherever it was', () => {
    for (const activity of ['running', 'blocked', 'asleep'] as const) {
      for (const name of ['execve', 'execveat'])
        assert.equal(outcome(inCall(name, { activity, isBeforeExec: true })), 'restart', name);
    }
    assert.equal(outcome(inCall('execve', { panicked: true, isBeforeExec: true })), 'in-doubt');
  });

  it('about to become another program, or to end, does not come back', () => {
    for (const name of ['execve', 'exit_group', 'rt_sigreturn']) {
      assert.equal(outcome(inCall(name, { activity: 'running' })), 'refuse', name);
    }
  });
});

describe('the codes that the kernel keeps to itself', () => {
  const codes = { ERESTARTSYS: -512n, ERESTARTNOINTR: -513n, ERESTARTNOHAND: -514n, RESTARTBLOCK: -516n };

  it('restart the call where no handler runs', () => {
    for (const ax of Object.values(codes)) assert.equal(outcome(inCall('read', { ax })), 'restart');
  });

  it('of a thread that sleeps ends by a signal that comes now, not by one that was pending', () => {
    const asleep = { activity: 'asleep', handlerPending: true, interruptedByHandler: true } as const;
    for (const name of ['rt_sigsuspend', 'pause', 'epoll_wait', 'accept'])
      assert.equal(outcome(inCall(name, asleep)), 'restart', name);
    for (const name of ['pause', 'epoll_wait', 'semop'])
      assert.equal(outcome(inCall(name, { ...asleep, wokenBy: { restarts: true } })), 'eintr', name);
    assert.equal(outcome(inCall('accept', { ...asleep, wokenBy: { restarts: true } })), 'restart');
    assert.equal(outcome(inCall('accept', { ...asleep, wokenBy: { restarts: false } })), 'eintr');
  });

  it('give EINTR where the handler does not restart calls', () => {
    const handled = { handlerPending: true, interruptedByHandler: true };
    assert.equal(outcome(inCall('read', { ax: codes.ERESTARTSYS, ...handled })), 'eintr');
    assert.equal(outcome(inCall('read', { ax: codes.ERESTARTNOINTR, ...handled })), 'restart');
  });

  it('give EINTR to a poll or a sleep for any handler, and restart a read for one with SA_RESTART', () => {
    const handled = { handlerPending: true, interruptedByHandler: false };
    assert.equal(outcome(inCall('poll', { ax: codes.ERESTARTNOHAND, ...handled })), 'eintr');
    assert.equal(outcome(inCall('nanosleep', { ax: codes.RESTARTBLOCK, ...handled })), 'eintr');
    assert.equal(outcome(inCall('read', { ax: codes.ERESTARTSYS, ...handled })), 'restart');
  });
});

describe('a futex call', () => {
  it('waits again if it was asleep, and has woken up if it was not', () => {
    assert.equal(outcome(inCall('futex', { futex: 'wait' })), 'restart');
    const awake = decideSyscall(inCall('futex', { futex: 'wait', activity: 'running' }));
    assert.equal(awake.outcome, 'result');
    assert.equal(awake.outcome === 'result' && awake.value, 0n);
  });

  it('wakes again, but changes no futex word twice', () => {
    assert.equal(outcome(inCall('futex', { futex: 'wake', activity: 'running' })), 'restart');
    assert.equal(outcome(inCall('futex', { futex: 'other', activity: 'running' })), 'in-doubt');
  });
});

describe('a lock that inherits priority', () => {
  const locking = (over: Partial<SyscallState>) => inCall('futex', { futex: 'lock', ...over });

  it('is the thread’s if its word says so, even if the thread has not noticed', () => {
    const got = decideSyscall(locking({ ownsFutex: true, activity: 'running' }));
    assert.equal(got.outcome === 'result' && got.value, 0n);
  });

  it('is waited for again if not: no such call ever ends with EINTR', () => {
    for (const activity of ['asleep', 'blocked', 'running'] as const) {
      assert.equal(outcome(locking({ ownsFutex: false, activity })), 'restart', activity);
    }
    assert.equal(outcome(locking({ activity: 'running' })), 'in-doubt');
  });

  it('is given back once', () => {
    const unlocking = { futex: 'unlock', activity: 'running' } as const;
    assert.equal(outcome(inCall('futex', { ...unlocking, ownsFutex: true })), 'restart');
    assert.equal(outcome(inCall('futex', { ...unlocking, ownsFutex: false })), 'result');
  });
});

describe('a call with a time of its own', () => {
  it('that was over has ended: a sleep is not slept a second time', () => {
    for (const name of ['nanosleep', 'clock_nanosleep']) {
      const over = decideSyscall(inCall(name, { activity: 'running', timeLeft: 0n }));
      assert.equal(over.outcome === 'result' && over.value, 0n, name);
    }
    assert.equal(outcome(inCall('poll', { activity: 'running', timeLeft: 0n })), 'restart');
  });

  it('of which nothing tells what was left is in doubt, unless the thread was asleep in it', () => {
    for (const name of ['nanosleep', 'epoll_wait', 'select']) {
      assert.equal(outcome(inCall(name, { activity: 'running', timeLeft: 'unknown' })), 'in-doubt', name);
      assert.equal(outcome(inCall(name, { timeLeft: 'unknown' })), 'restart', name);
      assert.equal(outcome(inCall(name, { activity: 'running', timeLeft: 5n })), 'restart', name);
    }
  });

  it('on a socket (SO_RCVTIMEO) ends with EINTR, as it does for any signal', () => {
    const limited = { hasSocketTimeout: true };
    const reading = transfer({ direction: 'read', through: 'stream-socket' });
    assert.equal(outcome(inCall('accept', limited)), 'eintr');
    assert.equal(outcome(inCall('recvfrom', { ...limited, transfer: reading })), 'eintr');
    const some = { ...limited, transfer: { ...reading, doneBytes: 3 } };
    assert.equal(outcome(inCall('recvfrom', some)), 'result');
  });
});

describe('the same call', () => {
  const { registers } = threadOf(1);
  const twice = (name: string, over: Partial<typeof registers>, flags?: bigint) =>
    notTwice(
      name,
      systemCalls.arguments({ ...registers, di: 0n, si: 0n, dx: 0n, r10: 0n, r8: 0n, r9: 0n, ...over }),
      () => flags,
    ) === undefined;

  it('opens a file again, but does not make one again that must be new', () => {
    assert.equal(twice('openat', { dx: 0o101n }), true);
    assert.equal(twice('openat', { dx: 0o301n }), false);
    assert.equal(twice('open', { si: 0o301n }), false);
    assert.equal(twice('openat2', {}, 0o301n), false);
    assert.equal(twice('openat2', {}, 0o1n), true);
    assert.equal(twice('openat2', {}), false);
  });

  it('empties no file again, nor sets its size', () => {
    assert.equal(twice('openat', { dx: 0o1001n }), false);
    assert.equal(twice('open', { si: 0o1001n }), false);
    assert.equal(twice('openat2', {}, 0o1001n), false);
    for (const name of ['truncate', 'ftruncate']) assert.equal(twice(name, {}), false, name);
  });

  it('reads no directory again from where it may have come, and takes no error of a socket', () => {
    for (const name of ['getdents', 'getdents64']) assert.equal(twice(name, {}), false, name);
    assert.equal(twice('getsockopt', { si: 1n, dx: 4n }), false);
    assert.equal(twice('getsockopt', { si: 1n, dx: 3n }), true);
    assert.equal(twice('getsockopt', { si: 6n, dx: 4n }), true);
  });

  it('goes to a place in a file again, but not a step further', () => {
    assert.equal(twice('lseek', { si: 4n, dx: 0n }), true);
    assert.equal(twice('lseek', { si: 0n, dx: 1n }), true);
    assert.equal(twice('lseek', { si: 4n, dx: 1n }), false);
  });

  it('allocates again, but moves nothing again', () => {
    assert.equal(twice('fallocate', { si: 1n }), true);
    assert.equal(twice('fallocate', { si: 8n }), false);
    assert.equal(twice('fallocate', { si: 0x20n }), false);
  });

  it('sets again, unless it tells what was set before', () => {
    for (const name of ['rt_sigprocmask', 'rt_sigaction', 'setitimer']) {
      assert.equal(twice(name, {}), true, name);
      assert.equal(twice(name, { dx: 0x7000n }), false, name);
    }
    assert.equal(twice('timer_settime', { r10: 0x7000n }), false);
    assert.equal(twice('prlimit64', { r10: 0x7000n }), true);
    assert.equal(twice('prlimit64', { dx: 0x6000n, r10: 0x7000n }), false);
  });

  it('changes what epoll watches, but adds nothing again', () => {
    assert.equal(twice('epoll_ctl', { si: 3n }), true);
    assert.equal(twice('epoll_ctl', { si: 1n }), false);
    assert.equal(twice('epoll_ctl', { si: 2n }), false);
  });

  it('with a position of -1 is one without a position', () => {
    const given = { ...registers, r10: (1n << 64n) - 1n, r9: 0x10n };
    const nowhere = systemCalls.arguments(given);
    assert.equal(withoutPosition('pwritev2', nowhere), 'writev');
    assert.equal(withoutPosition('preadv2', nowhere), 'readv');
    assert.equal(withoutPosition('pwritev2', systemCalls.arguments({ ...given, r10: 0n })), 'pwritev2');
    assert.equal(appends('pwritev2', nowhere), true);
    assert.equal(appends('pwritev2', systemCalls.arguments({ ...given, r9: 0n })), false);
  });
});

describe('a transfer', () => {
  it('ends with the bytes that were moved, or is made again if there were none', () => {
    const done = decideSyscall(
      inCall('write', { transfer: transfer({ doneBytes: 65536 }), activity: 'running' }),
    );
    assert.deepEqual(done, { outcome: 'result', value: 65536n, reason: '65536 bytes were moved' });
    assert.equal(outcome(inCall('write', { transfer: transfer({ doneBytes: 0 }) })), 'restart');
  });

  it('to a file is made again at the same position, if its stack says that it has not moved it', () => {
    const kept = { kind: 'position-kept', reason: 'it is in the file system' } as const;
    for (const direction of ['read', 'write'] as const) {
      const moving = { transfer: transfer({ through: 'regular', direction }) };
      for (const activity of ['blocked', 'running'] as const) {
        assert.equal(outcome(inCall(direction, { ...moving, activity, progress: kept })), 'restart');
        assert.equal(outcome(inCall(direction, { ...moving, activity })), 'in-doubt');
      }
      assert.equal(outcome(inCall(direction, moving)), 'restart');
    }
  });

  it('to the end of a file is made again only if not a byte was moved', () => {
    const kept = { kind: 'position-kept', reason: 'it is in the file system' } as const;
    for (const [doneBytes, progress, expected] of [
      [0, kept, 'restart'],
      [0, { kind: 'unknown', why: undefined }, 'in-doubt'],
      [1, kept, 'in-doubt'],
      [undefined, kept, 'in-doubt'],
    ] as const) {
      const appended = transfer({ through: 'regular', append: true, doneBytes });
      const state = { transfer: appended, activity: 'blocked', progress } as const;
      assert.equal(outcome(inCall('write', state)), expected);
    }
  });

  it('of unknown progress is in doubt, except where it happens at once or not at all', () => {
    assert.equal(outcome(inCall('write', { transfer: transfer({}) })), 'in-doubt');
    assert.equal(outcome(inCall('write', { transfer: transfer({ requestedBytes: 4096 }) })), 'restart');
    assert.equal(outcome(inCall('sendto', { transfer: transfer({ through: 'message-socket' }) })), 'restart');
    assert.equal(outcome(inCall('sendto', { transfer: transfer({ through: 'stream-socket' }) })), 'in-doubt');
  });

  it('of a message that was copied but waits for room is sent again: unix_dgram_sendmsg copies first', () => {
    const copied = transfer({ through: 'message-socket', requestedBytes: 100, doneBytes: 100 });
    assert.equal(outcome(inCall('sendto', { transfer: copied })), 'restart');
    assert.equal(outcome(inCall('sendto', { transfer: copied, activity: 'running' })), 'in-doubt');
  });

  it('through a stream counts a piece before it is sent or taken, unless it sleeps', () => {
    for (const direction of ['read', 'write'] as const) {
      const ahead = transfer({ through: 'stream-socket', direction, doneBytes: 4096, waitsForMore: true });
      for (const activity of ['blocked', 'running'] as const)
        assert.equal(outcome(inCall(direction, { transfer: ahead, activity })), 'in-doubt', activity);
      assert.equal(outcome(inCall(direction, { transfer: ahead })), 'result');
      const none = { ...ahead, doneBytes: 0 };
      assert.equal(outcome(inCall(direction, { transfer: none, activity: 'blocked' })), 'restart');
    }
  });

  it('through TCP counts what it has sent or taken under the lock of the socket', () => {
    const moved = transfer({ through: 'tcp-socket', doneBytes: 4096 });
    assert.equal(outcome(inCall('write', { transfer: moved, activity: 'running' })), 'result');
    assert.equal(outcome(inCall('write', { transfer: moved })), 'result');
    assert.equal(outcome(inCall('write', { transfer: moved, activity: 'blocked' })), 'in-doubt');
    const throwsAway = transfer({ through: 'tcp-socket', direction: 'read', doneBytes: undefined });
    assert.equal(outcome(inCall('recvfrom', { transfer: throwsAway })), 'restart');
    assert.equal(outcome(inCall('recvfrom', { transfer: throwsAway, activity: 'running' })), 'in-doubt');
    const all = { ...throwsAway, waitsForMore: true };
    assert.equal(outcome(inCall('recvfrom', { transfer: all })), 'in-doubt');
  });

  it('that reads takes nothing while it sleeps, unless it waits for more', () => {
    const reading = { direction: 'read', through: 'stream-socket' } as const;
    assert.equal(outcome(inCall('recvfrom', { transfer: transfer(reading) })), 'restart');
    assert.equal(
      outcome(inCall('recvfrom', { transfer: transfer({ ...reading, waitsForMore: true }) })),
      'in-doubt',
    );
    assert.equal(
      outcome(inCall('recvfrom', { transfer: transfer(reading), activity: 'running' })),
      'in-doubt',
    );
  });

  it('from a terminal is in doubt where the kernel keeps input aside: with VMIN above 1, and while it runs', () => {
    const reading = transfer({ direction: 'read', through: 'tty', doneBytes: 0 });
    assert.equal(outcome(inCall('read', { transfer: reading })), 'restart');
    assert.equal(outcome(inCall('read', { transfer: { ...reading, waitsForMore: true } })), 'in-doubt');
    assert.equal(outcome(inCall('read', { transfer: reading, activity: 'running' })), 'in-doubt');
  });

  it('to a terminal may be on the screen already', () => {
    assert.equal(
      outcome(inCall('write', { transfer: transfer({ through: 'tty', doneBytes: 0 }) })),
      'in-doubt',
    );
  });
});
