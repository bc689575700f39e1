import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fromBinary, type Message } from '@bufbuild/protobuf';
import type { GenMessage } from '@bufbuild/protobuf/codegenv2';
import { restorePlanSchema } from '../../../src/criu/images/plan/restore-plan.ts';
import { FdinfoEntrySchema, FdTypes, FileEntrySchema } from '../../../src/criu/images/proto/gen/files_pb.ts';
import { MmEntrySchema } from '../../../src/criu/images/proto/gen/mm_pb.ts';
import { writeImages } from '../../../src/criu/images/write-images.ts';
import type { IoUring } from '../../../src/model/io-uring.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { areaOf, groupOf, memoryOf, processOf } from '../processes.ts';

const AT = 0x7f00_0000_0000;
const ID = 7;
const words = { sqHead: 0, sqTail: 4, sqMask: 16, sqEntries: 24, sqFlags: 36, sqDropped: 32, sqArray: 320 };
const more = { cqHead: 8, cqTail: 12, cqMask: 20, cqEntries: 28, cqOverflow: 44, cqes: 64, cqFlags: 40 };

const ring: IoUring = {
  ...{ type: 'io-uring', id: ID, flags: 2, setup: 0, sqEntries: 8, cqEntries: 16 },
  owner: { uid: 0, euid: 0, signal: 0, pidType: 0, pid: 0 },
  ...{ requests: 20, completions: 19, unread: 1, issuer: undefined, offsets: { ...words, ...more } },
  rings: listedRuns([{ address: 0, pages: 1, physical: 5 * PAGE_SIZE }]),
  entries: listedRuns([{ address: 0, pages: 2, physical: 9 * PAGE_SIZE }]),
};

/** The entries of an image, behind its two magic numbers. */
function entriesOf<T extends Message>(path: string, schema: GenMessage<T>): T[] {
  const image = readFileSync(path);
  const entries: T[] = [];
  for (let at = 8; at < image.length; ) {
    const length = image.readUInt32LE(at);
    entries.push(fromBinary(schema, image.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
  return entries;
}

describe('images of an io_uring', () => {
  let directory = '';
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'otherworld-images-'));
    const areas = [
      areaOf(0x40_0000, 1),
      areaOf(AT, 1, { kind: 'io-uring', prot: 3, fileId: ID, ringPart: 'rings', runs: listedRuns([]) }),
      areaOf(AT + PAGE_SIZE, 2, {
        ...{ kind: 'io-uring', prot: 3, fileId: ID, ringPart: 'entries', offsetBytes: 0x1000_0000 },
        ...{ advice: [10], runs: listedRuns([]) },
      }),
    ];
    const group = groupOf([processOf(700, { memory: memoryOf(areas), filesId: 1 })]);
    const descriptors = [
      { fd: 5, fileId: ID, closeOnExec: true },
      { fd: 9, fileId: ID, closeOnExec: false },
    ];
    const files = { ...group.files, files: [ring], tables: [{ filesId: 1, descriptors }] };
    const source = {
      writeRuns: (fd: number, runs: readonly { physical: number; length: number }[]) =>
        runs.reduce(
          (sum, { physical, length }) => sum + writeSync(fd, Buffer.alloc(length, physical >> 12)),
          0,
        ),
    };
    writeImages({ ...group, files }, source, join(directory, 'images'));
  });
  after(() => rmSync(directory, { recursive: true }));
  const image = (name: string): string => join(directory, 'images', name);

  it('have its number taken by a descriptor that does nothing', () => {
    const [file] = entriesOf(image('files.img'), FileEntrySchema);
    assert.deepEqual([file?.id, file?.type, file?.reg?.name], [ID, FdTypes.REG, '/dev/null']);
    const O_PATH = 0o10000000;
    assert.equal(file?.reg?.flags, O_PATH);
    const descriptors = entriesOf(image('fdinfo-1.img'), FdinfoEntrySchema);
    assert.deepEqual(
      descriptors.map(({ fd, type }) => [fd, type]),
      [
        [5, FdTypes.REG],
        [9, FdTypes.REG],
      ],
    );
  });

  it('leave its places free, and have the lowest ones taken', () => {
    const [memory] = entriesOf(image('mm-700.img'), MmEntrySchema);
    const areas = memory?.vmas.map(({ start, end, prot }) => [Number(start), Number(end), prot]);
    assert.deepEqual(areas?.[0], [PAGE_SIZE, 0x1_0000, 0]);
    assert.deepEqual(
      areas?.slice(1).map(([start]) => start),
      [0x40_0000],
    );
  });

  it('have what is in it, and the plan how it is made', () => {
    const expected = [Buffer.alloc(PAGE_SIZE, 5), Buffer.alloc(2 * PAGE_SIZE, 9)];
    assert.ok(readFileSync(image(`io-uring-${ID}`)).equals(Buffer.concat(expected)));
    const { rings } = restorePlanSchema.parse(JSON.parse(readFileSync(image('restore.json'), 'utf8')));
    assert.deepEqual(rings, [
      {
        pid: 700,
        descriptors: [
          { fd: 5, closeOnExec: true },
          { fd: 9, closeOnExec: false },
        ],
        ...{ setup: 0, sqEntries: 8, cqEntries: 16, requests: 20, completions: 19, unread: 1 },
        offsets: ring.offsets,
        areas: [
          { start: AT, bytes: PAGE_SIZE, offset: 0, part: 'rings', advice: [] },
          {
            ...{ start: AT + PAGE_SIZE, bytes: 2 * PAGE_SIZE, offset: 0x1000_0000, part: 'entries' },
            advice: [10],
          },
        ],
        ...{ content: `io-uring-${ID}`, ringsBytes: PAGE_SIZE, entriesBytes: 2 * PAGE_SIZE },
      },
    ]);
  });
});
