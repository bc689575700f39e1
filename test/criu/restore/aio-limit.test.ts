import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { RESTORE_PLAN, restorePlanSchema } from '../../../src/criu/images/plan/restore-plan.ts';
import { writeRestorePlan } from '../../../src/criu/images/plan/write-plan.ts';
import { raiseAioLimit } from '../../../src/criu/restore/aio-limit.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { areaOf, groupOf, processOf } from '../processes.ts';

describe('the limit on asynchronous I/O', () => {
  let directory = '';
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'otherworld-aio-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));
  /** As if the system had this limit, and so much was in use; what there is afterwards. */
  const files = (limit: number, count: number) => {
    const paths = { limit: join(directory, 'aio-max-nr'), count: join(directory, 'aio-nr') };
    writeFileSync(paths.limit, `${limit}\n`);
    writeFileSync(paths.count, `${count}\n`);
    return { ...paths, now: () => Number(readFileSync(paths.limit, 'latin1')) };
  };

  it('is raised by what the contexts of a group count for, and by no more than once if others use it up', () => {
    const some = files(65_536, 1000);
    const first = raiseAioLimit(4000, some);
    assert.equal(some.now(), 69_536);
    const second = raiseAioLimit(500, some);
    assert.equal(some.now(), 70_036);
    first.finish(true);
    second.finish(false);
    assert.equal(some.now(), 69_536);
    const full = files(100, 1000);
    raiseAioLimit(10, full);
    assert.equal(full.now(), 1010);
  });

  it('stays as somebody else has set it since, and for a group without contexts', () => {
    const some = files(65_536, 0);
    const made = raiseAioLimit(100, some);
    writeFileSync(some.limit, '65600');
    made.finish(false);
    assert.equal(some.now(), 65_600);
    raiseAioLimit(0, some).finish(false);
    assert.equal(some.now(), 65_600);
  });

  it('has to have room for what all rings of a group have room for', () => {
    const ring = (at: number, pages: number) => areaOf(at, pages, { kind: 'aio-ring', prot: 3 });
    const one = processOf(7);
    const two = processOf(8);
    assert.ok(one.memory !== undefined && two.memory !== undefined);
    const group = groupOf([
      { ...one, memory: { ...one.memory, vmas: [ring(PAGE_SIZE, 1), ring(8 * PAGE_SIZE, 2)] } },
      { ...two, memory: { ...two.memory, vmas: [ring(PAGE_SIZE, 1), areaOf(8 * PAGE_SIZE, 1)] } },
    ]);
    writeRestorePlan(directory, group);
    const plan = restorePlanSchema.parse(JSON.parse(readFileSync(join(directory, RESTORE_PLAN), 'utf8')));
    assert.equal(plan.aioRequests, 62 + 126 + 62);
  });
});
