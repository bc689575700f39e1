import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { keptForALook, removedOnFailure } from '../../lab/boot.ts';
import { LabError } from '../../lab/error.ts';
import { isCommon } from '../guest/harness.ts';

/** What the start of a guest ends with, and which guests are removed. */
async function endOf(start: Promise<unknown>): Promise<[unknown, string[]]> {
  const removed: string[] = [];
  const end = await removedOnFailure(start, async (name) => void removed.push(name)).catch(
    (error: unknown) => error,
  );
  return [end, removed];
}

suite('a guest that nobody looks at', () => {
  test('is removed if it is not as it was to be', async () => {
    const cause = new LabError('cannot be armed', 3);
    const kept = keptForALook('mine', cause);
    assert.match(kept.message, /^cannot be armed\n.*lab down mine removes it$/);
    assert.equal(kept.exitStatus, 3);
    assert.deepEqual(await endOf(Promise.reject(kept)), [cause, ['mine']]);
  });

  test('is not removed if it has started, or if it is not the one that was to be started', async () => {
    assert.deepEqual(await endOf(Promise.resolve('state')), ['state', []]);
    const other = new LabError('guest mine runs already');
    assert.deepEqual(await endOf(Promise.reject(other)), [other, []]);
  });
});

suite('a guest that is broken off', () => {
  test('is removed only by who has begun to start it', () => {
    const cache = mkdtempSync(join(tmpdir(), 'otherworld-boot-'));
    try {
      const directory = join(cache, 'otherworld/guests/mine');
      mkdirSync(directory, { recursive: true });
      writeFileSync(join(directory, 'state.json'), '{}');
      const boot = join(import.meta.dirname, '../../lab/boot.ts');
      const program = `import { removeBegun } from '${boot}'; console.log(await removeBegun('mine'));`;
      const env = { ...process.env, XDG_CACHE_HOME: cache };
      const args = ['--input-type=module', '-e', program];
      assert.equal(execFileSync(process.execPath, args, { env, encoding: 'utf8' }), 'false\n');
      assert.equal(existsSync(directory), true);
    } finally {
      rmSync(cache, { recursive: true });
    }
  });
});

suite('the ordinary guest of a test', () => {
  test('is one that has the defaults, whoever says so', () => {
    const own = { cpus: 2, memoryMiB: 2048, crashKernelMiB: 320, append: '', quick: true, arm: true };
    for (const options of [{}, own, { cpus: undefined }, { configuration: 'x', forwards: [] }])
      assert.equal(isCommon(options), true, JSON.stringify(options));
    for (const options of [{ cpus: 4 }, { append: 'nox2apic' }, { quick: false }, { devices: [] }])
      assert.equal(isCommon(options), false, JSON.stringify(options));
  });
});
