import assert from 'node:assert/strict';
import { test } from 'node:test';
import { panicLine } from '../../lab/console-log.ts';

test('a kernel that panics at boot says so on the console', () => {
  assert.equal(panicLine('[    0.000000] Linux version 6.12\r\n'), undefined);
  assert.equal(
    panicLine("[ 1.3] Kernel panic - not syncing: IO-APIC + timer doesn't work!\r\n[ 1.4] CPU: 0\r\n"),
    "Kernel panic - not syncing: IO-APIC + timer doesn't work!",
  );
});
