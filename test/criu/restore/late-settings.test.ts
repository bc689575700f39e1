import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import * as z from 'zod';
import { writeRestorePlan } from '../../../src/criu/images/plan/write-plan.ts';
import { applyLateSettings } from '../../../src/criu/restore/late-settings.ts';
import { holdImages } from '../../../src/criu/restore/restore.ts';
import { changedOptions, type LateOption, lateOptions } from '../../../src/model/socket-option.ts';
import { fcntl } from '../../../src/system/descriptors.ts';
import { libcFunction } from '../../../src/system/libc.ts';
import { groupOf, lateNothing, memoryOf, processOf } from '../processes.ts';
import { cgroups, findAction, findOwn, needsCgroups } from './cgroups.ts';

/** libuv's handle of a server. */
const handle = z.object({ fd: z.int() });
const getOption = libcFunction<[fd: number, level: number, option: number, value: number[], size: number[]]>(
  'int getsockopt(int fd, int level, int option, _Out_ int *value, _Inout_ uint32_t *size)',
);

const [F_GETFL, F_GETPIPE_SZ] = [3, 1032];

function optionOf(fd: number, name: LateOption['name']): number {
  const value = [0];
  const [level, option] = lateOptions[name];
  assert.equal(getOption(fd, level, option, value, [4]), 0);
  return value[0] ?? 0;
}

describe('what CRIU leaves to be done', () => {
  it('is set on a socket of the process: the socket itself, not a copy', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { fd } = handle.parse(Reflect.get(server, '_handle'));
    const options: LateOption[] = [
      { name: 'TCP_DEFER_ACCEPT', value: 7 },
      { name: 'IP_TOS', value: 0x10 },
      { name: 'TCP_LINGER2', value: 0xffff_ffff },
    ];
    // Others than root can only give away to themselves.
    const [uid, gid] =
      process.getuid?.() === 0 ? [1234, 5678] : [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
    const sockets = [{ pid: process.pid, fd, uid, gid, options }];
    assert.deepEqual(applyLateSettings({ ...lateNothing, sockets }), []);
    assert.deepEqual([fstatSync(fd).uid, fstatSync(fd).gid], [uid, gid]);
    assert.equal(optionOf(fd, 'TCP_DEFER_ACCEPT'), 7);
    assert.equal(optionOf(fd, 'IP_TOS'), 0x10);
    assert.equal(optionOf(fd, 'TCP_LINGER2'), -1);
    server.close();
  });

  it('is set on a FIFO that had to be opened without waiting', () => {
    const path = join(mkdtempSync(join(tmpdir(), 'otherworld-fifo-')), 'fifo');
    execFileSync('mkfifo', [path]);
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const fifos = [{ pid: process.pid, fd, flags: 0o100000, capacityBytes: 16384 }];
    assert.deepEqual(applyLateSettings({ ...lateNothing, fifos }), []);
    assert.equal(fcntl(fd, F_GETFL, 0) & constants.O_NONBLOCK, 0);
    assert.equal(fcntl(fd, F_GETPIPE_SZ, 0), 16384);
    closeSync(fd);
    rmSync(dirname(path), { recursive: true });
  });

  it('is told if it could not be done', () => {
    const sockets = [{ pid: process.pid, fd: 9999, uid: 0, gid: 0, options: [] }];
    assert.match(applyLateSettings({ ...lateNothing, sockets })[0] ?? '', /fd 9999 .* has lost its options/);
  });

  it('is an option only where it is not as a new socket has it', () => {
    const changed = changedOptions([
      ['IP_TOS', 0, 0],
      ['IP_TTL', 9, -1],
      ['IP_LOCAL_PORT_RANGE', undefined, 0],
    ]);
    assert.deepEqual(changed, [{ name: 'IP_TTL', value: 9 }]);
  });

  it('is done before the processes run on', needsCgroups, async () => {
    const subject = spawn('sleep', ['1000']);
    const filter = () => readFileSync(`/proc/${subject.pid}/coredump_filter`, 'utf8').trim();
    const before = filter();
    const directory = mkdtempSync(join(tmpdir(), 'otherworld-late-'));
    const memory = { ...memoryOf([]), coredumpFilter: 0x1f };
    writeRestorePlan(directory, groupOf([processOf(subject.pid ?? 0, { memory })]));
    const script = [findOwn, findAction, `echo ${subject.pid} >$own/cgroup.procs`, 'action pre-resume'];
    writeFileSync(join(directory, 'criu'), `#!/bin/sh\n${script.join('\n')}\n`, { mode: 0o755 });
    const seen: string[] = [];
    const examine = () => {
      seen.push(filter());
      return [];
    };
    const command = [join(directory, 'criu')];
    const group = await holdImages(directory, { command, cgroups, examine, timeoutSeconds: 20 });
    assert.ok(group.restored === 'held', group.restored === false ? group.reason : '');
    seen.push(filter());
    assert.deepEqual(group.release().notes, []);
    assert.deepEqual(seen, [before, '0000001f']);
    assert.deepEqual(readdirSync(directory).sort(), ['criu', 'restore.json']);
    subject.kill('SIGKILL');
    rmSync(directory, { recursive: true });
  });
});
