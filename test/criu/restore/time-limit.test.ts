import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import { RESTORE_PLAN, restorePlanSchema } from '../../../src/criu/images/plan/restore-plan.ts';
import { writeRestorePlan } from '../../../src/criu/images/plan/write-plan.ts';
import { defaultTimeoutSeconds } from '../../../src/criu/restore/run-criu.ts';
import type { ProcessGroup } from '../../../src/model/group.ts';
import { socketAt } from '../inet-sockets.ts';
import { areaOf, groupOf, memoryOf, processOf, threadOf } from '../processes.ts';

suite('the time that CRIU has', () => {
  let directory = '';
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'otherworld-time-limit-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const make = (name: string, bytes: number) => writeFileSync(join(directory, name), Buffer.alloc(bytes));
  const none = { entries: 0 };

  test('is more for more content, whatever that is of, as it takes a slow disk to read it', () => {
    make('restore.log', 1 << 20);
    assert.equal(defaultTimeoutSeconds(directory, none), 120);
    const content = [
      'pages-1.img',
      'ghost-file-1.img',
      'pipes-data.img',
      'sk-queues.img',
      'tcp-stream-1.img',
    ];
    for (const [i, name] of content.entries()) {
      make(name, 20 << 20);
      assert.equal(defaultTimeoutSeconds(directory, none), 120 + 2 * (i + 1), name);
    }
  });

  test('is more for more that is made one by one', () => {
    make('files.img', 1000);
    assert.equal(defaultTimeoutSeconds(directory, { entries: 10_000 }), 221);
  });

  function entriesOf(name: string, group: ProcessGroup): number {
    mkdirSync(join(directory, name));
    writeRestorePlan(join(directory, name), group);
    const text = readFileSync(join(directory, name, RESTORE_PLAN), 'utf8');
    return restorePlanSchema.parse(JSON.parse(text)).entries;
  }

  test('is by descriptors, open files, areas and threads', () => {
    const plain = groupOf([processOf(7)]);
    const before = entriesOf('plain', plain);
    const vmas = [...(plain.processes[0]?.memory?.vmas ?? []), areaOf(0x10_0000, 1), areaOf(0x20_0000, 9)];
    const areas = groupOf([processOf(7, { memory: memoryOf(vmas) })]);
    assert.equal(entriesOf('areas', areas), before + 2);
    const threads = groupOf([processOf(7, { threads: [7, 8, 9].map((tid) => threadOf(tid)) })]);
    assert.equal(entriesOf('threads', threads), before + 20);
    const files = [1, 2, 3].map((id) => ({ ...socketAt([127, 0, 0, 1]), id }));
    const descriptors = [1, 1, 2, 3].map((fileId, fd) => ({ fd, fileId, closeOnExec: false }));
    const [filesId = 0] = plain.processes.map((process) => process.filesId);
    const own = { ...plain.files, files, tables: [{ filesId, descriptors }] };
    const old = plain.files.tables.reduce((sum, table) => sum + table.descriptors.length, 0);
    assert.equal(entriesOf('files', { ...plain, files: own }), before - old - plain.files.files.length + 7);
  });
});
