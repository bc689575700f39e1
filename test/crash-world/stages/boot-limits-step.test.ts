import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, suite, test } from 'node:test';
import { readBootLimits } from '../../../src/config/boot-limits.ts';
import { bootLimitsStep, raiseBootLimits, raised } from '../../../src/crash-world/stages/boot-limits-step.ts';
import type { Work } from '../../../src/crash-world/stages/work.ts';
import { emptyReport } from '../../report/example.ts';

const proc = mkdtempSync(join(tmpdir(), 'otherworld-limits-'));
after(() => rmSync(proc, { recursive: true }));

function write(name: string, text: string): void {
  const path = join(proc, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

function limits(processes: string, signals: string): string {
  return [
    'Limit                     Soft Limit           Hard Limit           Units     ',
    `Max processes             ${processes}   processes `,
    'Max open files            1024                 1048576              files     ',
    `Max pending signals       ${signals}   signals   `,
    '',
  ].join('\n');
}

suite('limits that follow from the memory of a boot', () => {
  test('are read of this system', () => {
    const { sysctls, rlimits } = readBootLimits();
    assert.match(sysctls['kernel/threads-max'] ?? '', /^\d+$/);
    assert.match(sysctls['net/ipv4/tcp_mem'] ?? '', /^\d+ \d+ \d+$/);
    assert.deepEqual(Object.keys(rlimits), ['6', '11']);
  });

  test('are raised where they are lower, and lowered nowhere', () => {
    assert.deepEqual(raised(['5'], ['7']), [7n]);
    assert.equal(raised(['7'], ['5']), undefined);
    assert.equal(raised(['7'], ['7']), undefined);
    assert.deepEqual(raised(['1', '9', '3'], ['2', '8', '3']), [2n, 9n, 3n]);
    assert.equal(raised(['unlimited', '5'], ['7', '5']), undefined);
    assert.deepEqual(raised(['7', '7'], ['7', 'unlimited']), [7n, 2n ** 64n - 1n]);
    assert.equal(raised([], ['7', '7']), undefined);
  });

  test('are those of the time when the system was armed', () => {
    write('sys/kernel/threads-max', '13000\n');
    write('sys/net/ipv4/tcp_mem', '100\t200\t300\n');
    write('sys/fs/file-max', '9223372036854775807\n');
    write('1/limits', limits('6500                 6500', '6500                 unlimited'));
    const then = readBootLimits(proc);
    write('sys/kernel/threads-max', '1500\n');
    write('sys/net/ipv4/tcp_mem', '50\t250\t150\n');
    write('1/limits', limits('750                  750', '7000                 7000'));
    const set: unknown[] = [];
    assert.deepEqual(
      raiseBootLimits(then, proc, (...limit) => set.push(limit)),
      [],
    );
    const now = (name: string) => readFileSync(join(proc, 'sys', name), 'latin1');
    assert.equal(now('kernel/threads-max'), '13000');
    assert.equal(now('net/ipv4/tcp_mem'), '100 250 300');
    assert.equal(now('fs/file-max'), '9223372036854775807\n');
    assert.deepEqual(set, [
      [6, 6500n, 6500n],
      [11, 7000n, 2n ** 64n - 1n],
    ]);
  });

  test('are named where they cannot be set', () => {
    write('1/limits', limits('750 750', '750 750'));
    const fail = () => {
      throw new Error('EPERM');
    };
    assert.deepEqual(raiseBootLimits({ sysctls: {}, rlimits: { 6: ['900', '900'] } }, proc, fail), [
      'limit 6 of process 1 stays as the crash kernel has set it: EPERM',
    ]);
  });

  test('stay as they are unless most of the memory is there again, which is said', async () => {
    const MIB = 2 ** 20;
    const notesWith = async (bytes: number): Promise<readonly string[]> => {
      const report = emptyReport();
      report.notes = [];
      const manifest = { bootLimits: { sysctls: {}, rlimits: {} } };
      const takenBack = { bytes: bytes * MIB, ofBytes: 4096 * MIB };
      await bootLimitsStep.run({ takenBack }, { manifest, report } as unknown as Work);
      return report.notes;
    };
    assert.deepEqual(await notesWith(3072), []);
    for (const bytes of [0, 2048])
      assert.deepEqual(await notesWith(bytes), [
        `limits stay as the crash kernel has set them: ${bytes} of 4096 MiB of old memory are taken back`,
      ]);
  });
});
