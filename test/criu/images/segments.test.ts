import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { writeImages } from '../../../src/criu/images/index.ts';
import { segmentsSchema } from '../../../src/criu/images/plan/segments.ts';
import { vmaEntry } from '../../../src/criu/images/vma.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import type { SharedSegment } from '../../../src/model/segment.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { areaOf, groupOf, processOf } from '../processes.ts';

/** VMA_AREA_REGULAR and VMA_AREA_SYSVIPC of criu/include/image.h. */
const STATUS = (1 << 0) | (1 << 10);
const ID = 5 * 32768;

const segment: SharedSegment = {
  ...{
    id: ID,
    key: 0xcf57_0001,
    uid: 3,
    gid: 4,
    cuid: 1,
    cgid: 2,
    mode: 0o640,
    sizeBytes: 3 * PAGE_SIZE + 100,
  },
  ...{ isRemoved: false, isLocked: true, isNotReserved: false, attachments: 2 },
  runs: listedRuns([
    { address: 0, pages: 1, physical: 0x5000 },
    { address: 2 * PAGE_SIZE, pages: 1, physical: 0x9000 },
    { address: 3 * PAGE_SIZE, pages: 1, physical: 0x7000 },
  ]),
};

describe('images of System V shared memory', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'otherworld-images-'));
  after(() => rmSync(scratch, { recursive: true }));

  const entryOf = (over: Parameters<typeof areaOf>[2]) => {
    const { fd, shmid, prot, status, pgoff } = vmaEntry(
      areaOf(0x10_0000, 1, { kind: 'segment', segment: { id: ID, isWritable: true }, ...over }),
    );
    return { fd, shmid, prot, status, pgoff };
  };

  it('have the number where what attaches it looks for it, and ask for writing by PROT_EXEC', () => {
    const first = { fd: BigInt(ID), shmid: BigInt(ID), status: STATUS, pgoff: 0n };
    assert.deepEqual(entryOf({ prot: 1 }), { ...first, prot: 5 });
    assert.deepEqual(entryOf({ prot: 1, segment: { id: ID, isWritable: false } }), { ...first, prot: 1 });
  });

  it('say of the other areas of an attachment that they are there', () => {
    assert.deepEqual(entryOf({ offsetBytes: PAGE_SIZE, prot: 1 }), {
      ...{ fd: 0x7fff_ffffn, shmid: BigInt(ID), prot: 1, status: STATUS, pgoff: BigInt(PAGE_SIZE) },
    });
  });

  it('have what is needed to make it, and its content in whole pages', () => {
    const directory = join(scratch, 'one');
    const source = {
      writeRuns: (fd: number, runs: readonly { physical: number; length: number }[]) =>
        runs.reduce(
          (sum, { physical, length }) => sum + writeSync(fd, Buffer.alloc(length, physical >> 12)),
          0,
        ),
    };
    const group = { ...groupOf([processOf(700)]), segments: [segment] };
    const { pagesBytes } = writeImages(group, source, directory);
    const { runs, ...rest } = segment;
    assert.deepEqual(
      segmentsSchema.parse(JSON.parse(readFileSync(join(directory, 'segments.json'), 'utf8'))),
      [
        {
          ...rest,
          contentOffset: 0,
          chunks: [
            { offset: 0, length: PAGE_SIZE },
            { offset: 2 * PAGE_SIZE, length: 2 * PAGE_SIZE },
          ],
        },
      ],
    );
    const content = readFileSync(join(directory, 'segments.raw'));
    const expected = [Buffer.alloc(PAGE_SIZE, 5), Buffer.alloc(PAGE_SIZE, 9), Buffer.alloc(PAGE_SIZE, 7)];
    assert.ok(content.equals(Buffer.concat(expected)));
    assert.equal(runs.pages, 3);
    // What it takes of the memory that the crash world has.
    assert.equal(pagesBytes, content.length);
  });

  it('are none for a group without any', () => {
    const directory = join(scratch, 'none');
    writeImages(groupOf([processOf(700)]), { writeRuns: () => 0 }, directory);
    assert.ok(!existsSync(join(directory, 'segments.json')) && !existsSync(join(directory, 'segments.raw')));
  });
});
