import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, suite, test } from 'node:test';
import { readCrashNotes } from '../../src/kexec/crash-notes.ts';
import { readEfiState } from '../../src/kexec/efi.ts';

const made: string[] = [];

/** A directory with these files, by their paths. */
function rootWith(files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), 'kexec-'));
  made.push(root);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

after(() => {
  for (const root of made) rmSync(root, { recursive: true });
});

function descriptor(index: number, values: readonly string[]): Record<string, string> {
  const names = ['type', 'phys_addr', 'virt_addr', 'num_pages', 'attribute'];
  return Object.fromEntries(
    names.map((name, i) => [`sys/firmware/efi/runtime-map/${index}/${name}`, `${values[i]}\n`]),
  );
}

const efi = {
  'sys/firmware/efi/fw_vendor': '0x7fea0000\n',
  'sys/firmware/efi/config_table': '0x7fea1000\n',
  'sys/firmware/efi/systab': 'ACPI20=0x7fb7e014\nACPI=0x7fb7e000\nSMBIOS=0x7fea2000\n',
  ...descriptor(10, ['0x6', '0x7f100000', '0xfffffffeff000000', '0x2', '0xf']),
  ...descriptor(9, ['0x5', '0x7f000000', '0xffffffff00000000', '0x10', '0x8000000000000000']),
};

suite('the state of EFI', () => {
  test('is read with its runtime map in order', () => {
    assert.deepEqual(readEfiState(rootWith(efi)), {
      fwVendor: 0x7fea0000n,
      configTable: 0x7fea1000n,
      smbios: 0x7fea2000n,
      rsdp: 0x7fb7e014n,
      runtimeMap: [
        { type: 5, physical: 0x7f000000n, virtual: 0xffff_ffff_0000_0000n, pages: 16n, attribute: 1n << 63n },
        { type: 6, physical: 0x7f100000n, virtual: 0xffff_fffe_ff00_0000n, pages: 2n, attribute: 0xfn },
      ],
    });
  });

  test('has an older root pointer, or none, and perhaps no SMBIOS', () => {
    const old = readEfiState(rootWith({ ...efi, 'sys/firmware/efi/systab': 'ACPI=0x7fb7e000\n' }));
    assert.deepEqual([old?.rsdp, old?.smbios], [0x7fb7e000n, 0n]);
    assert.equal(readEfiState(rootWith({ ...efi, 'sys/firmware/efi/systab': '' }))?.rsdp, undefined);
  });

  test('is nothing where EFI has not booted the machine, or offers no services', () => {
    assert.equal(readEfiState(rootWith({})), undefined);
    assert.equal(readEfiState(rootWith({ 'sys/firmware/efi/systab': '' })), undefined);
  });

  test('is refused if a file has no address', () => {
    const root = rootWith({ ...efi, 'sys/firmware/efi/fw_vendor': 'invalid' });
    assert.throws(() => readEfiState(root), {
      name: 'KexecError',
      message: /fw_vendor has "invalid", not a hexadecimal number; run this as root/,
    });
  });
});

const notes = {
  'sys/devices/system/cpu/cpu10/crash_notes': '7eb3d800\n',
  'sys/devices/system/cpu/cpu10/crash_notes_size': '368\n',
  'sys/devices/system/cpu/cpu2/crash_notes': '7ea3d800\n',
  'sys/devices/system/cpu/cpu2/crash_notes_size': '368\n',
  'sys/devices/system/cpu/cpu3/online': '0\n',
  'sys/devices/system/cpu/cpufreq/boost': '0\n',
  'sys/kernel/vmcoreinfo': '0x0000000001a3e000 1024\n',
};

suite('crash notes', () => {
  test('are those of the CPUs that have some, in order, then vmcoreinfo', () => {
    assert.deepEqual(readCrashNotes(rootWith(notes)), [
      { address: 0x7ea3d800, bytes: 368 },
      { address: 0x7eb3d800, bytes: 368 },
      { address: 0x1a3e000, bytes: 0x1024 },
    ]);
  });

  test('are refused if they are nowhere, or hidden', () => {
    const none = rootWith({ 'sys/devices/system/cpu/cpu0/online': '1\n' });
    assert.throws(() => readCrashNotes(none), { name: 'KexecError', message: /CONFIG_CRASH_DUMP/ });
    const hidden = rootWith({ ...notes, 'sys/devices/system/cpu/cpu2/crash_notes': '0\n' });
    assert.throws(() => readCrashNotes(hidden), /cpu2\/crash_notes has "0" where a number is expected/);
    const { 'sys/kernel/vmcoreinfo': _, ...without } = notes;
    assert.throws(() => readCrashNotes(rootWith(without)), /vmcoreinfo is missing/);
    const odd = rootWith({ ...notes, 'sys/kernel/vmcoreinfo': '0x1a3e000\n' });
    assert.throws(() => readCrashNotes(odd), /vmcoreinfo has ""/);
  });
});
