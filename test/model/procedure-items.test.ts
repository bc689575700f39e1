import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { UnexpectedKind, UnexpectedLoss } from '../../src/model/loss.ts';
import { itemCapacity } from '../../src/model/procedure-incident.ts';
import { procedureItems } from '../../src/model/procedure-items.ts';

function losses(kind: UnexpectedKind, count: number): UnexpectedLoss[] {
  return Array.from({ length: count }, (_, i) => ({
    ...{ kind, of: `${kind} ${i}`, what: `${kind} ${i} is gone` },
    ...(kind === 'descriptors' ? { fd: i } : { tid: i }),
  }));
}

const inDoubt = [{ tid: 7, fd: 3, syscall: 'write', reason: 'may have been made' }];

test('descriptors come first, of which a program asks by number, and doubts last', () => {
  const unexpected = [...losses('threads', 2), ...losses('memory', 1), ...losses('descriptors', 2)];
  const connection = { kind: 'connections' as const, of: 'x', what: 'the connection is reset' };
  const items = procedureItems({ unexpected, losses: [connection], inDoubt });
  assert.deepEqual(
    items.map(({ what }) => what),
    [
      ...['descriptors 0 is gone', 'descriptors 1 is gone', 'the connection is reset', 'memory 0 is gone'],
      ...['threads 0 is gone', 'threads 1 is gone', 'write: may have been made'],
    ],
  );
  assert.deepEqual(items.at(-1), {
    ...{ kind: 'in-doubt', tid: 7, fd: 3, what: 'write: may have been made' },
  });
});

test('many threads and areas are one item each, and cost no descriptor its place', () => {
  const descriptors = itemCapacity - 4;
  const unexpected = [
    ...losses('threads', itemCapacity),
    ...losses('memory', itemCapacity),
    ...losses('descriptors', descriptors),
  ];
  const items = procedureItems({ unexpected, losses: [], inDoubt });
  assert.equal(items.length, descriptors + 3);
  assert.deepEqual(
    items.slice(0, descriptors).map(({ fd }) => fd),
    Array.from({ length: descriptors }, (_, fd) => fd),
  );
  assert.deepEqual(
    items.slice(descriptors, descriptors + 2).map(({ what, tid }) => [what, tid]),
    [
      [`${itemCapacity} memory areas are gone; the first: memory 0 is gone`, undefined],
      [`${itemCapacity} threads and timers are gone; the first: threads 0 is gone`, undefined],
    ],
  );
});
