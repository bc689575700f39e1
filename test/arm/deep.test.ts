import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deepCommandLine, requireQemu } from '../../src/arm/deep.ts';

test("the crash world is booted in QEMU with the crash kernel's own parameters, but for this machine's", () => {
  const line = deepCommandLine(
    'root=UUID=12 ro quiet console=tty0 init=/run/otherworld/payload/init otherworld.crash-world memmap=1G!1G lpj=4 panic=10 module_blacklist=squashfs',
  ).split(' ');
  for (const kept of [
    'init=/run/otherworld/payload/init',
    'otherworld.crash-world',
    'module_blacklist=squashfs',
  ])
    assert.ok(line.includes(kept), kept);
  for (const name of ['memmap', 'lpj', 'quiet', 'ro'])
    assert.ok(!line.some((parameter) => parameter.split('=')[0] === name), name);
  assert.deepEqual(
    line.filter((parameter) => /^(root|panic|console)=/.test(parameter)),
    ['root=none', 'console=ttyS0', 'panic=-1'],
  );
});

test("the system's QEMU is taken, else the one that was unpacked, else it says what to install", async () => {
  const unpacked = { system: '/cache/qemu', environment: { A: 'b' }, firmwareArguments: ['-L', '/cache'] };
  const mine = await requireQemu(() => Promise.reject(new Error('asked')), '/usr/bin/qemu');
  assert.deepEqual([mine.system, mine.firmwareArguments], ['/usr/bin/qemu', []]);
  assert.equal(await requireQemu(async () => unpacked, ''), unpacked);
  await assert.rejects(
    requireQemu(async () => undefined, ''),
    /apt-get install qemu-system-x86$/,
  );
});
