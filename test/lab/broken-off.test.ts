import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';

const program = `import { whenBrokenOff } from '${join(import.meta.dirname, '../../lab/broken-off.ts')}';
whenBrokenOff(async () => {
  console.log('cleaned');
  throw new Error('not all of it');
});
setInterval(() => {}, 1000);
console.log('runs');`;

test('who is broken off cleans up, and ends by the signal', async () => {
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.on('data', (data) => {
    said += String(data);
    if (said === 'runs\n') child.kill('SIGTERM');
  });
  const [status, signal] = await once(child, 'close');
  assert.deepEqual([status, signal, said], [null, 'SIGTERM', 'runs\ncleaned\n']);
});
