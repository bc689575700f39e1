import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { clearBusMasters, StrayDmaError } from '../../../src/crash-world/machine/stray-dma.ts';

const MASTER = 0x0507;

const scratch = mkdtempSync(join(tmpdir(), 'otherworld-pci-'));
after(() => rmSync(scratch, { recursive: true }));

/** A device as sysfs shows it. @returns its directory */
function device(
  bus: string,
  name: string,
  { class: deviceClass = '0x020000', command = MASTER, ...more }: Record<string, string | number>,
): string {
  const directory = join(bus, name);
  mkdirSync(directory);
  const config = Buffer.alloc(64);
  config.writeUInt16LE(Number(command), 4);
  for (const [file, content] of Object.entries({ class: `${deviceClass}\n`, ...more }))
    writeFileSync(join(directory, file), String(content));
  writeFileSync(join(directory, 'config'), config);
  return directory;
}

const commandOf = (directory: string): number => readFileSync(join(directory, 'config')).readUInt16LE(4);

test('bus mastering ends where no driver is, and only there', () => {
  const bus = join(scratch, 'devices');
  mkdirSync(bus);
  const card = device(bus, 'card', { reset: '', reset_method: 'flr bus\n' });
  const driven = device(bus, 'driven', {});
  symlinkSync(scratch, join(driven, 'driver'));
  const bridge = device(bus, 'bridge', { class: '0x060400' });
  const iommu = device(bus, 'iommu', { class: '0x080600' });
  const display = device(bus, 'display', { class: '0x030000', reset: '', reset_method: 'flr\n' });
  const idle = device(bus, 'idle', { command: 0x0103 });
  const gone = device(bus, 'gone', { command: 0xffff });
  clearBusMasters(bus);
  assert.deepEqual([card, display].map(commandOf), [MASTER - 4, MASTER - 4]);
  assert.deepEqual([driven, bridge, iommu].map(commandOf), [MASTER, MASTER, MASTER]);
  assert.deepEqual([idle, gone].map(commandOf), [0x0103, 0xffff]);
  assert.equal(readFileSync(join(card, 'reset'), 'utf8'), '1');
  assert.equal(readFileSync(join(card, 'reset_method'), 'utf8'), 'default');
  assert.equal(readFileSync(join(display, 'reset'), 'utf8'), '');
});

test('a device that stays a bus master is an error with its name', () => {
  const bus = join(scratch, 'stubborn');
  mkdirSync(join(bus, '0000:00:05.0'), { recursive: true });
  writeFileSync(join(bus, '0000:00:05.0/class'), '0x020000\n');
  // Begins with `nodev`, of which the fifth byte has the bit, and takes no write.
  symlinkSync('/proc/filesystems', join(bus, '0000:00:05.0/config'));
  assert.throws(() => clearBusMasters(bus), StrayDmaError);
  assert.throws(() => clearBusMasters(bus), /0000:00:05\.0 can still write to memory: E/);
});
