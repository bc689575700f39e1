import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { cpioArchive } from '../../src/arm/cpio.ts';
import { kexecTools, missingOptions, watchdog } from '../../src/arm/doctor.ts';
import { withoutSections } from '../../src/arm/elf.ts';
import { ArmError } from '../../src/arm/errors.ts';
import { parseIomem } from '../../src/arm/iomem.ts';
import { parseLdd, sharedLibraries } from '../../src/arm/libraries.ts';
import { singleNodeSrat } from '../../src/arm/srat.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-arm-'));
after(() => rmSync(directory, { recursive: true }));

test('a program without its sections is smaller and still runs', () => {
  const whole = readFileSync(process.execPath);
  const stripped = withoutSections(whole);
  assert.ok(stripped.length < whole.length * 0.9);
  const path = join(directory, 'node');
  writeFileSync(path, stripped);
  chmodSync(path, 0o755);
  assert.equal(execFileSync(path, ['-p', '6*7'], { encoding: 'utf8' }), '42\n');
});

test('what is no ELF program is an error', () => {
  assert.throws(() => withoutSections(Buffer.from('#!/bin/sh\n')), ArmError);
});

test('the libraries of a program are found, the dynamic linker among them', () => {
  const names = sharedLibraries([process.execPath, '/bin/ls']).map((library) => library.name);
  assert.ok(names.includes('libc.so.6'));
  assert.ok(names.some((name) => name.startsWith('ld-linux')));
  assert.equal(new Set(names).size, names.length);
});

test('a missing library is named', () => {
  assert.throws(() => parseLdd(['criu'], '\tlibnet.so.1 => not found\n'), /criu lacks .*libnet\.so\.1/);
  const several =
    '/bin/cp:\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f00)\n/usr/sbin/criu:\n\tlibnet.so.1 => not found\n';
  assert.throws(() => parseLdd(['/bin/cp', '/usr/sbin/criu'], several), /criu lacks .*libnet\.so\.1/);
});

test('cpio reads the archive back: names, modes, content', () => {
  const entries = [
    { path: 'a/b/c', mode: 0o600, data: Buffer.from('hello') },
    { path: 'a/run', mode: 0o755, data: Buffer.from('#!/bin/sh\n') },
    { path: 'empty', mode: 0o644, data: Buffer.alloc(0) },
    { path: 'link', kind: 'link', mode: 0o777, data: Buffer.from('a/b') },
  ] as const;
  const archive = Buffer.concat(cpioArchive(entries));
  assert.equal(archive.length % 4, 0);
  execFileSync('cpio', ['-i', '--quiet'], { cwd: directory, input: archive });
  assert.equal(readFileSync(join(directory, 'a/b/c'), 'utf8'), 'hello');
  const listing = execFileSync('cpio', ['-itv', '--quiet'], { input: archive, encoding: 'utf8' });
  assert.match(listing, /^drwx------ .* a$/m);
  assert.match(listing, /^-rwxr-xr-x .* a\/run$/m);
  assert.match(listing, /^-rw-r--r-- .* 0 .* empty$/m);
  assert.match(listing, /^lrwxrwxrwx .* link -> a\/b$/m);
});

test('the affinity table has a right checksum, and one node that reaches to the end of memory', () => {
  const table = singleNodeSrat(
    parseIomem('00001000-0009ffff : System RAM\n100000000-27fffffff : System RAM\n'),
  );
  assert.equal(table.readUInt32LE(4), table.length);
  assert.equal(table.reduce((sum, byte) => sum + byte, 0) % 256, 0);
  const memory = table.subarray(48);
  assert.deepEqual([memory.readBigUInt64LE(8), memory.readBigUInt64LE(16)], [0n, 0x280000000n]);
});

test('kexec-tools are needed where there can be no stage zero, and advised elsewhere', () => {
  assert.equal(kexecTools('/usr/sbin/kexec', 'the processor has no XSAVE').state, 'good');
  assert.deepEqual(kexecTools(undefined, undefined), {
    ...{ what: 'kexec', state: 'advice', found: 'not installed' },
    todo: 'apt-get install kexec-tools: only they load a crash kernel if arm cannot',
  });
  assert.deepEqual(kexecTools(undefined, 'the processor has no XSAVE'), {
    ...{ what: 'kexec', state: 'missing', found: 'not installed' },
    todo: 'apt-get install kexec-tools: arm cannot load the crash kernel, as the processor has no XSAVE',
  });
});

test('a watchdog that runs is advice, with its time', () => {
  const watchdogs = join(directory, 'watchdog');
  assert.equal(watchdog(watchdogs).state, 'good');
  for (const [name, state] of [
    ['watchdog0', 'inactive'],
    ['watchdog1', 'active'],
  ] as const) {
    mkdirSync(join(watchdogs, name), { recursive: true });
    writeFileSync(join(watchdogs, name, 'state'), `${state}\n`);
    writeFileSync(join(watchdogs, name, 'identity'), `${name} timer\n`);
    writeFileSync(join(watchdogs, name, 'timeout'), '30\n');
  }
  const { state, found } = watchdog(watchdogs);
  assert.equal(state, 'advice');
  assert.equal(found, 'watchdog1 timer resets the machine after 30 s without an answer');
});

test('what connections need of the kernel is missed', () => {
  const missing = missingOptions('CONFIG_DUMMY=m\nCONFIG_BPF_SYSCALL=y\n# CONFIG_CGROUP_BPF is not set\n');
  const names = missing.map(([name]) => name);
  assert.ok(names.includes('CGROUP_BPF') && names.includes('INET_DIAG'));
  assert.ok(!names.includes('DUMMY') && !names.includes('BPF_SYSCALL'));
  assert.ok(missingOptions('').some(([name]) => name === 'DUMMY'));
});
