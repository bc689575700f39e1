import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { captureCrashProcedures } from '../../src/capture/crash-procedure.ts';
import { applyCrashProcedures } from '../../src/criu/images/crash-procedure.ts';
import { stage, start } from './stage.ts';

const occasion = { id: '20261122-101112-c0ffee', panicTimeNanoseconds: 1_795_000_000_123_000_000n };

test('a Node program is told of its incident by the signal that it chose, and of no other', async () => {
  const subject = await start(process.execPath, [join(import.meta.dirname, 'node-subject.js')]);
  process.kill(subject.pid, 'SIGUSR2');
  const staged = await stage(subject.pid);
  const captured = captureCrashProcedures(staged.kernel, staged.group);
  const [record] = captured;
  assert.ok(record?.valid);
  assert.deepEqual(record.procedure.delivery, { kind: 'signal', signal: 12 });
  assert.equal(record.procedure.timeLimitMilliseconds, 2500);
  const { group } = applyCrashProcedures(staged.group, captured, occasion);
  await staged.apply(group);
  const { value } = await subject.lines.next();
  assert.deepEqual(JSON.parse(value), {
    ...{ id: occasion.id, panicTime: new Date(1_795_000_000_123).toISOString(), resurrections: 1 },
    ...{ lost: [], inDoubt: [], itemsOmitted: 0 },
  });
  assert.equal(await subject.exit, '0');
});
