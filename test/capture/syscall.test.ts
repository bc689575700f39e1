import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { decideSyscall, type SyscallState, type Transfer } from '../../src/capture/syscall.ts';
import { syscallRow, syscallTable } from '../../src/capture/syscall-table.ts';
import { syscallName, syscallNumber } from '../../src/linux/unistd.ts';

const ENOSYS = -38n;

function inCall(name: string, over: Partial<SyscallState> = {}): SyscallState {
  const number = syscallNumber(name);
  assert.notEqual(number, undefined, `${name} is a system call`);
  return {
    number: number ?? 0,
    ax: ENOSYS,
    activity: 'asleep',
    panicked: false,
    interruptedByHandler: false,
    handlerPending: false,
    futex: undefined,
    transfer: undefined,
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
    waitsForAll: false,
    ...over,
  };
}

const outcome = (state: SyscallState): string => decideSyscall(state).outcome;

describe('the table of system calls', () => {
  it('names each call once, and only calls that exist', () => {
    const names = syscallTable.flatMap(({ calls }) => calls.split(/\s+/));
    assert.deepEqual(
      names.filter((name) => syscallNumber(name) === undefined),
      [],
    );
    assert.equal(new Set(names).size, names.length);
  });

  it('treats what it does not name as something that must not happen twice', () => {
    assert.equal(syscallRow('bpf').class, 'once');
    assert.equal(syscallRow('syscall 999').class, 'once');
  });

  it('numbers calls as the kernel does', () => {
    assert.equal(syscallName(0), 'read');
    assert.equal(syscallName(334), 'rseq');
    assert.equal(syscallName(435), 'clone3');
    assert.equal(syscallName(400), 'syscall 400');
  });
});

describe('a thread that was', () => {
  it('in no system call goes on where it was', () => {
    assert.equal(outcome({ ...inCall('read'), number: -1, ax: 5n, activity: 'user' }), 'resume');
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
    for (const name of ['pread64', 'pwrite64', 'fsync', 'stat', 'openat', 'munmap']) {
      assert.equal(outcome(inCall(name, { activity: 'blocked' })), 'restart', name);
    }
  });

  it('in a call that must not happen twice is in doubt, whether on a CPU or waiting for a disk', () => {
    for (const name of ['rename', 'unlink', 'clone', 'kill', 'mkdir']) {
      assert.equal(outcome(inCall(name, { activity: 'blocked' })), 'in-doubt', name);
      assert.equal(outcome(inCall(name, { activity: 'running' })), 'in-doubt', name);
    }
  });

  it('in the call that killed the kernel never makes it again', () => {
    assert.equal(outcome(inCall('write', { activity: 'running', panicked: true })), 'eintr');
    assert.equal(outcome(inCall('stat', { activity: 'running', panicked: true })), 'eintr');
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

describe('a transfer', () => {
  it('ends with the bytes that were moved, or is made again if there were none', () => {
    const done = decideSyscall(
      inCall('write', { transfer: transfer({ doneBytes: 65536 }), activity: 'running' }),
    );
    assert.deepEqual(done, { outcome: 'result', value: 65536n, reason: '65536 bytes were moved' });
    assert.equal(outcome(inCall('write', { transfer: transfer({ doneBytes: 0 }) })), 'restart');
  });

  it('to a file is made again at the same position, unless it appends', () => {
    const file = { through: 'regular' } as const;
    assert.equal(outcome(inCall('write', { transfer: transfer(file), activity: 'blocked' })), 'restart');
    assert.equal(
      outcome(inCall('write', { transfer: transfer({ ...file, append: true }), activity: 'blocked' })),
      'in-doubt',
    );
    assert.equal(
      outcome(inCall('read', { transfer: transfer({ ...file, direction: 'read' }), activity: 'blocked' })),
      'restart',
    );
  });

  it('of unknown progress is in doubt, except where it happens at once or not at all', () => {
    assert.equal(outcome(inCall('write', { transfer: transfer({}) })), 'in-doubt');
    assert.equal(outcome(inCall('write', { transfer: transfer({ requestedBytes: 4096 }) })), 'restart');
    assert.equal(outcome(inCall('sendto', { transfer: transfer({ through: 'message-socket' }) })), 'restart');
    assert.equal(outcome(inCall('sendto', { transfer: transfer({ through: 'stream-socket' }) })), 'in-doubt');
  });

  it('that reads takes nothing while it sleeps, unless it waits for all', () => {
    const reading = { direction: 'read', through: 'stream-socket' } as const;
    assert.equal(outcome(inCall('recvfrom', { transfer: transfer(reading) })), 'restart');
    assert.equal(
      outcome(inCall('recvfrom', { transfer: transfer({ ...reading, waitsForAll: true }) })),
      'in-doubt',
    );
    assert.equal(
      outcome(inCall('recvfrom', { transfer: transfer(reading), activity: 'running' })),
      'in-doubt',
    );
  });

  it('to a terminal may be on the screen already', () => {
    assert.equal(
      outcome(inCall('write', { transfer: transfer({ through: 'tty', doneBytes: 0 }) })),
      'in-doubt',
    );
  });
});
