import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { strangePrograms } from '../../../src/crash-world/sandbox/sandbox-programs.ts';

test("programs of a sandbox that are not the system's own are named", async () => {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-programs-'));
  const path = join(directory, 'sh');
  writeFileSync(path, '');
  const cover = `mount -t tmpfs none ${directory} && : >${path} && echo ready && exec sleep 1000`;
  const placeholder = spawn('unshare', ['--mount', 'sh', '-c', cover], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    await once(placeholder.stdout, 'data');
    const pid = placeholder.pid ?? 0;
    assert.deepEqual(strangePrograms(pid, ['/bin/sh', join(directory, 'none')]), []);
    assert.deepEqual(strangePrograms(pid, ['/bin/sh', path]), [
      `its sandbox has another ${path} than the system, and nothing is run there`,
    ]);
  } finally {
    placeholder.kill('SIGKILL');
    rmSync(directory, { recursive: true });
  }
});
