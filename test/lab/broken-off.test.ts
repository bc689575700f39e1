import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';

const imports = `import { unlessBrokenOff, whenBrokenOff } from '${join(import.meta.dirname, '../../lab/broken-off.ts')}';`;

/** A program that says that it runs, and how it ends if it is broken off then. */
async function endOf(program: string): Promise<[number | null, string | null, string]> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', imports + program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.on('data', (data) => {
    said += String(data);
    if (said === 'runs\n') child.kill('SIGTERM');
  });
  const [status, signal] = await once(child, 'close');
  return [status, signal, said];
}

test('who is broken off cleans up, and ends by the signal', async () => {
  const program = `
whenBrokenOff(async () => {
  console.log('cleaned');
  throw new Error('not all of it');
});
setInterval(() => {}, 1000);
console.log('runs');`;
  assert.deepEqual(await endOf(program), [null, 'SIGTERM', 'runs\ncleaned\n']);
});

for (const [how, settle] of [
  ['fails', "reject(new Error('it was taken away'))"],
  ['succeeds', 'resolve()'],
])
  test(`work that is broken off is nobody's any more, if it ${how} while it is cleaned up`, async () => {
    const program = `
const { promise, resolve, reject } = Promise.withResolvers();
setInterval(() => {}, 1000);
const work = unlessBrokenOff(() => promise, async () => {
  ${settle};
  await new Promise((done) => setTimeout(done, 50));
  console.log('cleaned');
});
console.log('runs');
await work.catch((error) => console.log(error.message));
console.log('done');`;
    assert.deepEqual(await endOf(program), [null, 'SIGTERM', 'runs\ncleaned\n']);
  });

test('work that is done is not cleaned up any more', async () => {
  const program = `
setInterval(() => {}, 1000);
const clean = async () => console.log('cleaned');
await unlessBrokenOff(async () => {}, clean);
await unlessBrokenOff(() => Promise.reject(new Error('no')), clean).catch(() => console.log('runs'));`;
  assert.deepEqual(await endOf(program), [null, 'SIGTERM', 'runs\n']);
});
