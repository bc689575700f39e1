import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, readlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { takeDescriptor } from '../../src/system/descriptors.ts';
import { errnoName, errnoText, SystemCallError } from '../../src/system/errno.ts';
import { makeFifo } from '../../src/system/file-calls.ts';
import { checked, libcFunction, memoryAt } from '../../src/system/libc.ts';
import { mapShared, unmap } from '../../src/system/mmap.ts';

suite('a function of libc', () => {
  test('returns what it returns, or why it failed', () => {
    const getpid = libcFunction<[]>('int getpid()');
    const close = libcFunction<[fd: number]>('int close(int fd)');
    assert.equal(getpid(), process.pid);
    assert.equal(close(-1), -constants.errno.EBADF);
  });

  test('that has to succeed throws an error with its name, and that of the errno', () => {
    assert.equal(checked('read', 3), 3);
    assert.throws(
      () => makeFifo('/proc/none', 0o600),
      (error) =>
        error instanceof SystemCallError &&
        error.call === 'mkfifo' &&
        error.code === 'ENOENT' &&
        error.errno === constants.errno.ENOENT &&
        error.message === 'mkfifo: ENOENT, no such file or directory',
    );
  });

  test("gives a process's own file, and says of which there is none", () => {
    const fd = openSync('/proc/self/maps', 'r');
    const taken = takeDescriptor(process.pid, fd);
    assert.equal(readlinkSync(`/proc/self/fd/${taken}`), readlinkSync(`/proc/self/fd/${fd}`));
    for (const open of [fd, taken]) closeSync(open);
    assert.equal(takeDescriptor(process.pid, 100_000), -constants.errno.EBADF);
  });

  test('maps a file, and its memory can be looked at', () => {
    const fd = openSync(process.execPath, 'r');
    const address = mapShared(fd, 0, 4);
    assert.equal(Buffer.from(memoryAt(address, 4)).toString('latin1'), '\x7fELF');
    unmap(address, 4);
    closeSync(fd);
    assert.throws(() => mapShared(-1, 0, 4), { code: 'EBADF' });
  });
});

test('an errno is told by name and in words, as far as there are some', () => {
  assert.equal(errnoText(constants.errno.ENOSPC), 'ENOSPC, no space left on device');
  assert.deepEqual([errnoName(constants.errno.EAGAIN), errnoText(524)], ['EAGAIN', 'errno 524']);
});

test('a module that could call libc does not load it before it does', () => {
  const module = join(import.meta.dirname, '../../src/system/directory-lock.ts');
  const script = `await import(${JSON.stringify(module)});
    process.stdout.write((await import('node:fs')).readFileSync('/proc/self/maps', 'latin1'));`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
  });
  assert.match(stdout, /\[stack\]/, stderr);
  assert.doesNotMatch(stdout, /koffi\.node/);
  makeFifoFails();
  assert.match(readFileSync('/proc/self/maps', 'latin1'), /koffi\.node/);
});

function makeFifoFails(): void {
  assert.throws(() => makeFifo('/proc/none', 0o600), { name: 'SystemCallError' });
}
