import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  bootApicId,
  crashCommandLine,
  loopsPerJiffy,
  splitCommandLine,
  timerWorks,
} from '../../src/arm/command-line.ts';
import { ArmError } from '../../src/arm/errors.ts';

const inputs = {
  main: 'BOOT_IMAGE=/boot/vmlinuz root=UUID=12 ro quiet console=ttyS0 crashkernel=320M resume=/dev/sda2',
  ranges: [{ start: 2 ** 27, end: 2 ** 28 }],
  loopsPerJiffy: 12345,
  bootApicId: 0,
  timerWorks: true,
  rebootAfterSeconds: 10,
  add: [],
  remove: [],
};

test('what the root file system and the console need is kept, what concerns memory and loader is not', () => {
  const line = splitCommandLine(crashCommandLine(inputs));
  for (const kept of ['root=UUID=12', 'ro', 'quiet', 'console=ttyS0']) assert.ok(line.includes(kept), kept);
  assert.ok(!line.some((parameter) => /^(BOOT_IMAGE|crashkernel|resume)/.test(parameter)));
});

test('the crash world gets one CPU, its init, free pids, offline memory and the old memory', () => {
  const line = splitCommandLine(crashCommandLine(inputs));
  const wanted = [
    'maxcpus=1',
    'init=/run/otherworld/payload/init',
    'panic=10',
    'lpj=12345',
    'memmap=128M!128M',
  ];
  const numbers = ['sysctl.kernel.pid_max=4194304', 'sysctl.kernel.ns_last_pid=4186111'];
  for (const parameter of [...wanted, 'memhp_default_state=offline', ...numbers]) {
    assert.ok(line.includes(parameter), parameter);
  }
});

test("bounce buffers are small; forcing them is the main kernel's affair", () => {
  const bounce = (main: string) =>
    splitCommandLine(crashCommandLine({ ...inputs, main: `root=/dev/vda ${main}` })).filter((parameter) =>
      parameter.startsWith('swiotlb='),
    );
  assert.deepEqual(bounce('quiet'), ['swiotlb=4096,1']);
  assert.deepEqual(bounce('swiotlb=65536'), ['swiotlb=4096,1']);
  assert.deepEqual(bounce('swiotlb=65536,2,force'), ['swiotlb=4096,1,force']);
  assert.deepEqual(bounce('swiotlb=force swiotlb=noforce'), ['swiotlb=4096,1,noforce']);
  assert.deepEqual(bounce('swiotlb=noforce'), ['swiotlb=4096,1,noforce']);
});

test('an own command line gives the same again', () => {
  const once = crashCommandLine(inputs);
  assert.equal(crashCommandLine({ ...inputs, main: `${once} elfcorehdr=0x1` }).split(' memmap=').length, 2);
});

test('the configuration adds and removes parameters', () => {
  const line = splitCommandLine(crashCommandLine({ ...inputs, add: ['irqpoll'], remove: ['quiet'] }));
  assert.ok(line.includes('irqpoll'));
  assert.ok(!line.includes('quiet'));
});

test('without root= nothing is armed', () => {
  assert.throws(() => crashCommandLine({ ...inputs, main: 'quiet' }), ArmError);
});

test('a line that the kernel would cut is refused', () => {
  assert.throws(
    () => crashCommandLine({ ...inputs, add: ['x'.repeat(2000)] }),
    /crash-kernel\.remove-parameters/,
  );
});

test('quoted values stay whole', () => {
  assert.deepEqual(splitCommandLine('a dyndbg="file x +p" b'), ['a', 'dyndbg="file x +p"', 'b']);
});

test('loops per jiffy come from bogomips and HZ', () => {
  assert.equal(loopsPerJiffy('x : 1\nbogomips\t: 4000.00\n', 'CONFIG_HZ_250=y\nCONFIG_HZ=250\n'), 8_000_000);
  assert.equal(loopsPerJiffy('', 'CONFIG_HZ=250\n'), undefined);
});

test('the boot processor is kept from being reset', () => {
  assert.equal(bootApicId('processor\t: 0\ninitial apicid\t: 4\nprocessor\t: 1\ninitial apicid\t: 6\n'), 4);
  assert.ok(
    splitCommandLine(crashCommandLine({ ...inputs, bootApicId: 4 })).includes('disable_cpu_apicid=4'),
  );
});

test('the timer is tried again unless the main kernel found that its interrupt arrives directly', () => {
  const tried = '[    0.1] ..TIMER: vector=0x30 apic1=0 pin1=2 apic2=-1 pin2=-1\n';
  assert.ok(timerWorks(tried));
  assert.ok(!timerWorks(`${tried}[    0.2] ..MP-BIOS bug: 8254 timer not connected to IO-APIC\n`));
  assert.ok(!timerWorks('[  9.0] the beginning is gone\n'));
  assert.ok(splitCommandLine(crashCommandLine(inputs)).includes('no_timer_check'));
  assert.ok(!crashCommandLine({ ...inputs, timerWorks: false }).includes('no_timer_check'));
});
