import assert from 'node:assert/strict';
import { test } from 'node:test';
import { foundRuns, joinRuns, listedRuns, type PageRun } from '../../src/model/page-runs.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';

function run(page: number, frame: number, pages = 1): PageRun {
  return { address: page * PAGE_SIZE, pages, physical: frame * PAGE_SIZE };
}

test('runs that are adjacent both in the object and in memory are joined', () => {
  const runs = [run(0, 10), run(1, 11, 2), run(3, 20), run(5, 21), run(6, 22)];
  assert.deepEqual([...joinRuns(runs)], [run(0, 10, 3), run(3, 20), run(5, 21, 2)]);
  assert.deepEqual([...joinRuns([])], []);
});

test('listed and found runs can be gone through any number of times', () => {
  const runs = [run(0, 1), run(4, 2, 3)];
  for (const source of [listedRuns(runs), foundRuns('the area', 4, () => runs)]) {
    assert.equal(source.pages, 4);
    assert.deepEqual([...source], runs);
    assert.deepEqual([...source], runs);
  }
});

test('runs that are others than before are an error', () => {
  const more = foundRuns('the area at 0x7000', 3, () => [run(0, 1), run(4, 2, 3)]);
  assert.throws(() => [...more], /the area at 0x7000 has 4 pages in old memory, where 3 were found before/);
});

test('who needs only the first run does not look for the others', () => {
  const first = foundRuns('the area', 2, function* () {
    yield run(0, 1);
    assert.fail('went on');
  });
  const [found] = first;
  assert.deepEqual(found, run(0, 1));
});
