// Boots one bare guest per release: what the lab promises to those who use it, before any Otherworld is
// involved. The last tests kill its kernel.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { processExists } from '../../lab/cache.ts';
import { strike } from '../../lab/fault.ts';
import { guestNames, guestPid } from '../../lab/guest.ts';
import { bootTestGuest, PACKAGES, release, scratchDirectory, type TestGuest } from './harness.ts';

function readHead(file: string, length: number): string {
  const buffer = Buffer.alloc(length);
  const fd = openSync(file, 'r');
  readSync(fd, buffer, 0, length, 0);
  closeSync(fd);
  return buffer.toString('latin1');
}

suite(`a guest with ${release}`, () => {
  let guest: TestGuest;
  const scratch = scratchDirectory();

  before(async () => {
    guest = await bootTestGuest('lab', { install: false, quick: false });
  });
  after(async () => {
    scratch.remove();
    await guest?.down();
  });

  test('runs the stock kernel of its release, with memory reserved for a crash kernel', async () => {
    const kernel = await guest.sh('uname -r');
    assert.match(
      kernel,
      release === 'trixie' ? /^6\.12\.\d+\+deb13-cloud-amd64$/ : /^6\.1\.\d+-\d+-cloud-amd64$/,
    );
    assert.equal(await guest.sh('cat /sys/kernel/kexec_crash_size'), String(320 * 2 ** 20));
  });

  test('has booted whole: no unit failed', async () => {
    await guest.until('systemctl is-system-running | grep -q running', 30);
    assert.equal(await guest.sh('systemctl --failed --plain --no-legend'), '');
  });

  test('exec gives the exit status, standard output and standard error of the command', async () => {
    const result = await guest.exec(['sh', '-c', 'echo out; echo err >&2; exit 7']);
    assert.deepEqual(result, { status: 7, stdout: 'out\n', stderr: 'err\n' });
    assert.equal((await guest.exec(['sh', '-c', 'exit 255'])).status, 255);
    assert.equal((await guest.exec(['/no/such/program'])).status, 127);
  });

  test('exec gives every argument to the command as it is', async () => {
    const words = [
      '',
      ' ',
      "it's",
      '"',
      '$HOME',
      '`id`',
      '\\',
      '*',
      'a\nb',
      '-n',
      '--',
      '~',
      'ä€',
      '!x',
      '#',
      ';',
    ];
    const { stdout } = await guest.exec(['printf', '%s\\0', ...words]);
    assert.deepEqual(stdout.split('\0').slice(0, -1), words);
  });

  test('exec ends a command whose time is up', async () => {
    const { status } = await guest.exec(['sleep', '60'], { timeoutSeconds: 2 });
    assert.equal(status, 124);
    assert.equal(await guest.sh('pgrep -cx sleep || true'), '0');
  });

  test('exec hands standard input on', async () => {
    const { stdout } = await guest.exec(['sha256sum'], { input: 'otherworld' });
    assert.equal(stdout.slice(0, 64), createHash('sha256').update('otherworld').digest('hex'));
  });

  test('a program started in the background outlives its exec', async () => {
    const pid = await guest.background('exec sleep 1000');
    assert.equal(await guest.sh(`cat /proc/${pid}/comm`), 'sleep');
  });

  test('copy takes a large file there and back, bit by bit', async () => {
    const [original, copy] = [join(scratch.path, 'original'), join(scratch.path, 'copy')];
    writeFileSync(original, randomBytes(32 * 2 ** 20));
    await guest.copyIn(original, '/root/large');
    await guest.copyOut('/root/large', copy);
    assert.ok(readFileSync(original).equals(readFileSync(copy)));
  });

  test('the vmcore of the living guest has VMCOREINFO, all memory, and the guest goes on', async () => {
    const file = join(scratch.path, 'vmcore');
    const uptime = Number(await guest.sh('cut -d. -f1 /proc/uptime'));
    const size = await guest.vmcore(file);
    assert.ok(size >= 2048 * 2 ** 20);
    const head = readHead(file, 64 * 1024);
    assert.ok(head.startsWith('\x7fELF'));
    assert.match(head, /VMCOREINFO/);
    assert.ok(head.includes(`OSRELEASE=${await guest.sh('uname -r')}\n`));
    assert.match(head, /^KERNELOFFSET=/m);
    assert.ok(Number(await guest.sh('cut -d. -f1 /proc/uptime')) >= uptime);
  });

  test('lab up that is ended while the guest boots takes it down, and says so', async () => {
    const name = `${guest.name}-2`;
    const command = join(import.meta.dirname, '../../otherworld');
    const options = ['--no-arm', '--release', release, '--install', PACKAGES.join(',')];
    const child = spawn(command, ['lab', 'up', name, ...options], { stdio: ['ignore', 'ignore', 'pipe'] });
    const ended = once(child, 'close');
    let said = '';
    child.stderr.on('data', (data) => {
      said += String(data);
    });
    while (guestPid(name) === undefined && child.exitCode === null) await sleep(100);
    const qemu = guestPid(name);
    assert.ok(qemu !== undefined, said);
    child.kill('SIGTERM');
    assert.deepEqual(await ended, [null, 'SIGTERM']);
    assert.match(said, new RegExp(`broken off\n.* ${name} is taken down\n$`));
    assert.deepEqual([processExists(qemu), guestNames().includes(name)], [false, false]);
  });

  test('a guest that is not armed is not killed by mistake', async () => {
    await assert.rejects(guest.panic(), /is not armed/);
  });

  test('bug makes the kernel run into an invalid opcode', async () => {
    await strike(guest.name, 'bug');
    await guest.consoleSays(/invalid opcode: 0000 \[#1\]/);
    await guest.consoleSays(/RIP: 0010:__x64_sys_sethostname\+0x0\//);
  });

  test('a CPU that is not there, or cannot be chosen, is an error', async () => {
    await assert.rejects(strike(guest.name, 'sysrq', 2), /--cpu 2: guest \S+ has CPUs 0 to 1$/);
    await assert.rejects(strike(guest.name, 'nmi', 0), /--cpu: QEMU gives an NMI to all CPUs/);
  });

  test('oops makes the kernel read through a bad pointer, on the CPU that is asked for', async () => {
    await strike(guest.name, 'oops', 1);
    await guest.consoleSays(/\] CPU: 1 .*PID: \d+ Comm: hostname/);
    await guest.consoleSays(/BUG: kernel NULL pointer dereference, address: 0000000000000010/);
    await guest.consoleSays(/Oops: 0000 \[#2\]|Oops: Oops: 0000 \[#2\]/);
  });

  test('nmi panics the kernel, and the vmcore of the dead guest has its last words', async () => {
    await strike(guest.name, 'nmi');
    await guest.consoleSays(/end Kernel panic - not syncing: NMI: Not continuing/);
    const file = join(scratch.path, 'dead');
    await guest.vmcore(file);
    const main = join(import.meta.dirname, '../../src/cli/main.ts');
    const log = execFileSync(process.execPath, [main, 'inspect', file, 'log'], { encoding: 'utf8' });
    assert.match(log.slice(-4000), /Kernel panic - not syncing: NMI: Not continuing/);
  });
});
