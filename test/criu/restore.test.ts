import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parseCriuVersion, restoreProblems, wholeGroup } from '../../src/criu/limits.ts';
import { restoreImages } from '../../src/criu/restore.ts';
import { writeRestorePlan } from '../../src/criu/restore-plan.ts';
import { groupOf, processOf, threadOf } from './processes.ts';

const old = { major: 3, minor: 17 };
const recent = { major: 4, minor: 1 };

describe('a restore', () => {
  const fakeCriu = async (script: string) => {
    const directory = mkdtempSync(join(tmpdir(), 'otherworld-restore-'));
    writeRestorePlan(directory, groupOf([processOf(process.pid)]));
    writeFileSync(join(directory, 'criu'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    const result = await restoreImages(directory, { command: [join(directory, 'criu')], timeoutSeconds: 1 });
    rmSync(directory, { recursive: true });
    return result;
  };

  it('that works names the processes that are there', async () => {
    const result = await fakeCriu('exit 0');
    assert.deepEqual(result.restored && result.pids, [process.pid]);
  });

  it('that fails gives the first error as its reason', async () => {
    const log =
      '(00.1) 7: Error (criu/x.c:1): Can not open usr/x\\n(00.2) Error (criu/x.c:2): Restoring FAILED.\\n';
    const result = await fakeCriu(`printf '${log}' > "$3/restore.log"; exit 1`);
    assert.equal(result.restored, false);
    assert.equal(!result.restored && result.reason, 'criu: Can not open usr/x');
  });

  it('that does not end is ended', async () => {
    const result = await fakeCriu('exec sleep 30');
    assert.match(result.restored ? '' : result.reason, /SIGKILL after 1 s/);
  });

  it('without criu says so', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'otherworld-restore-'));
    writeRestorePlan(directory, groupOf([processOf(process.pid)]));
    const result = await restoreImages(directory, { command: ['/nonexistent/criu'] });
    rmSync(directory, { recursive: true });
    assert.match(result.restored ? '' : result.reason, /ENOENT/);
  });
});

describe('what CRIU cannot restore', () => {
  it('depends on its version', () => {
    assert.deepEqual(parseCriuVersion('Version: 3.17.1\nGitID: v3.17.1\n'), old);
    assert.equal(parseCriuVersion('criu: not found'), undefined);
    const [thread] = [threadOf(9)];
    const hardened = threadOf(9, {
      credentials: { ...thread!.credentials, noNewPrivs: true, capAmbient: 1n },
    });
    const group = groupOf([processOf(9, { threads: [hardened] })]);
    assert.deepEqual(restoreProblems(group, recent), []);
    assert.equal(restoreProblems(group, old)[0]?.reasons.length, 2);
  });

  it('is a signal for the death of a parent that stays dead', () => {
    const orphan = processOf(9, { threads: [threadOf(9, { parentDeathSignal: 15 })] });
    assert.match(restoreProblems(groupOf([orphan]), recent)[0]?.reasons[0] ?? '', /wants signal 15/);
    const child = processOf(10, { ppid: 9, threads: [threadOf(10, { parentDeathSignal: 15 })] });
    assert.deepEqual(restoreProblems(groupOf([processOf(9), child]), recent), []);
  });
});

describe('a group of whom one cannot be restored', () => {
  it('is refused as a whole, each by name', () => {
    const group = groupOf([processOf(7), processOf(8)]);
    const refused = wholeGroup(group, [{ pid: 7, comm: 'one', reasons: ['is impossible'] }]);
    assert.deepEqual(
      refused.map(({ pid, reasons }) => [pid, reasons]),
      [
        [7, ['is impossible']],
        [8, ['belongs together with 7 (one), which cannot come back']],
      ],
    );
  });
});
