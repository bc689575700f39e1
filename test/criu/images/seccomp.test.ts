import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { fromBinary, isFieldSet } from '@bufbuild/protobuf';
import { ImageDirectory } from '../../../src/criu/images/image.ts';
import {
  SeccompEntrySchema,
  type SeccompFilter as SeccompFilterEntry,
  SeccompFilterSchema,
} from '../../../src/criu/images/proto/gen/seccomp_pb.ts';
import { filterIds, writeSeccomp } from '../../../src/criu/images/seccomp.ts';
import type { SeccompFilter } from '../../../src/model/process.ts';
import { processOf, threadOf } from '../processes.ts';

const filter = (name: string, previous?: SeccompFilter, isLogged = false): SeccompFilter => ({
  program: Buffer.from(name.padEnd(8)),
  isLogged,
  previous,
});

suite('filters of seccomp in the images', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'otherworld-seccomp-'));
  after(() => rmSync(scratch, { recursive: true }));
  const oldest = filter('oldest');
  const middle = filter('middle', oldest, true);
  const [newest, other] = [filter('newest', middle), filter('other', oldest)];
  const thread = (tid: number, seccomp?: SeccompFilter) => ({ ...threadOf(tid), seccomp });
  const tree = [
    processOf(7, { threads: [thread(7, newest), thread(8, other)] }),
    processOf(9, { threads: [thread(9), thread(10, newest), thread(11, middle)] }),
  ];

  function written() {
    const images = new ImageDirectory(join(scratch, 'images'));
    writeSeccomp({ tree }, images);
    images.close();
    // Two magic numbers, the length of the only entry, and that.
    return fromBinary(SeccompEntrySchema, readFileSync(join(scratch, 'images/seccomp.img')).subarray(12))
      .seccompFilters;
  }

  test('are installed by CRIU from the oldest of a thread to its newest', () => {
    const filters = written();
    const ids = filterIds({ tree });
    /** As CRIU's seccomp_prepare_threads goes. */
    const installed = (seccomp: SeccompFilter): string[] => {
      const names: string[] = [];
      for (let at = ids.get(seccomp); at !== undefined; ) {
        const one: SeccompFilterEntry = filters[at] ?? assert.fail(`nothing is at ${at}`);
        names.push(`${Buffer.from(one.filter).toString().trim()}${one.flags === 2 ? ' logged' : ''}`);
        at = isFieldSet(one, SeccompFilterSchema.field.prev) ? one.prev : undefined;
      }
      return names;
    };
    assert.deepEqual(installed(newest), ['oldest', 'middle logged', 'newest']);
    assert.deepEqual(installed(other), ['oldest', 'other']);
    assert.deepEqual(installed(middle), ['oldest', 'middle logged']);
    assert.equal(filters.length, 7);
  });

  test('are the same for threads that have the newest one in common', () => {
    assert.deepEqual(
      [...filterIds({ tree })],
      [
        [newest, 2],
        [other, 4],
        [middle, 6],
      ],
    );
  });
});
