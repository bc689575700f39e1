import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { roomFinding } from '../../src/arm/doctor.ts';
import type { ImagesNeed } from '../../src/arm/images-need.ts';
import { judgeRoom, lookAtRoom } from '../../src/arm/room-for-images.ts';
import { defaultConfig } from '../../src/config/config.ts';
import { COMMON_BYTES_PER_SECOND } from '../../src/config/restore-time.ts';
import { timeForOne } from '../../src/crash-world/time-share.ts';
import { type ImagesRoom, roomOf } from '../../src/report/images-room.ts';
import { EXT_MAGIC, TMPFS_MAGIC } from '../../src/system/file-systems.ts';
import { freeOf } from '../../src/system/free-space.ts';

const MIB = 2 ** 20;

const judge = (need: ImagesNeed, room: ImagesRoom) => judgeRoom(need, room, 30);

suite('the room for images', () => {
  const room = (free: number) =>
    roomOf({ directory: '/var/lib', bytes: free * MIB, files: undefined, type: EXT_MAGIC });
  const need = (mebibytes: number, tmpfs = 0, files = 10) => ({
    processes: { bytes: mebibytes * MIB, files },
    tmpfsBytes: tmpfs * MIB,
  });

  test('is enough, or too little for the processes, or for the files on tmpfs as well', () => {
    const enough = judge(need(900, 30), room(1000));
    assert.deepEqual([enough.problem, enough.tmpfsProblem], [undefined, undefined]);
    const short = judge(need(940), room(1000));
    assert.match(
      short.problem ?? '',
      /^the images of what is protected now need 940 MiB, and 1000 MiB are free in \/var\/lib, 64 of them for the rest of the system\. .*: make room there/,
    );
    const lost = judge(need(900, 50), room(1000));
    assert.equal(lost.problem, undefined);
    assert.match(
      lost.tmpfsProblem ?? '',
      /^with the files on tmpfs that are carried over, images need 950 MiB/,
    );
    // Of little, not all is kept for others.
    assert.equal(judge(need(8), room(10)).problem, undefined);
    assert.match(judge(need(10), room(10)).problem ?? '', /10 MiB are free in \/var\/lib, 1 of them/);
  });

  test('is what the doctor goes by: of what is protected now, and of half of the memory', () => {
    const stateOf = (needed: number, free: number, tmpfs = 0) =>
      roomFinding(judge(need(needed, tmpfs), room(free)), 1024 * MIB);
    assert.deepEqual(stateOf(100, 600), {
      ...{ what: 'storage for images', state: 'good', found: '100 MiB needed, 600 MiB free in /var/lib' },
    });
    assert.equal(stateOf(100, 500).state, 'advice');
    assert.match(stateOf(100, 600, 500).todo ?? '', /^with the files on tmpfs/);
    const missing = stateOf(580, 600);
    assert.equal(missing.state, 'missing');
    assert.match(missing.todo ?? '', /^the images of what is protected now need 580 MiB/);
  });

  test('does not help where the disk would have to be faster than most', () => {
    assert.equal(judge(need(80_000), room(900_000)).rateProblem, undefined);
    const slow = judge(need(262_144), room(900_000));
    assert.match(
      slow.rateProblem ?? '',
      /within 30 minutes, which takes a disk with more than 318 MiB\/s .*: set crash-kernel\.time-limit-minutes to 94 and arm again/,
    );
    assert.equal(judgeRoom(need(262_144), room(900_000), 94).rateProblem, undefined);
    assert.equal(slow.problem, undefined);
    assert.equal(roomFinding(slow, 1024 * MIB).state, 'advice');
    // What is on tmpfs takes its time, too.
    assert.notEqual(judge(need(80_000, 10_000), room(900_000)).rateProblem, undefined);
  });

  test('does not help services in sandboxes either, and no setting gives them more time', () => {
    const service = (mebibytes: number) => ({ ...need(mebibytes), sandboxBytes: mebibytes * MIB });
    assert.equal(judge(service(67_000), room(900_000)).rateProblem, undefined);
    const { rateProblem } = judge(service(70_000), room(900_000));
    assert.match(rateProblem ?? '', /^the images of services in sandboxes .* within 13 minutes/);
    assert.doesNotMatch(rateProblem ?? '', /time-limit-minutes/);
  });

  test('is told with the time that a group then has', () => {
    const minutes = 30;
    const bytes = 80_000 * MIB;
    assert.equal(judge(need(80_000), room(900_000)).rateProblem, undefined);
    const seconds = bytes / COMMON_BYTES_PER_SECOND;
    const time = { minutes, limit: 'time-limit-minutes' };
    const one = { pagesBytes: bytes, ringSeconds: 0 };
    assert.ok(timeForOne(time, one, [], (60 + seconds) * 1000).seconds >= seconds);
    // The same in several groups, the largest of which is first.
    const parts = [0.9, 0.05, 0.05].map((part) => ({ pagesBytes: part * bytes, ringSeconds: 0 }));
    let passed = 30 + seconds;
    for (const [i, part] of parts.entries()) {
      const own = part.pagesBytes / COMMON_BYTES_PER_SECOND;
      assert.ok(timeForOne(time, part, parts.slice(i + 1), passed * 1000).seconds >= Math.floor(own), `${i}`);
      passed += own;
    }
  });

  test('ends with the inodes of the file system, too', () => {
    const { problem } = judge(need(1, 0, 100), { ...room(1000), ...{ files: 90, filesForImages: 81 } });
    assert.match(problem ?? '', /need 100 files, and 90 more can be made in \/var\/lib/);
  });

  test('is no disk if that is a file system in memory', () => {
    const inMemory = { ...room(10_000), type: TMPFS_MAGIC };
    assert.match(judge(need(1), inMemory).problem ?? '', /^images\.directory is on a file system in memory/);
    assert.equal(judge(need(0, 0, 0), inMemory).problem, undefined);
  });

  test('is what root can write', () => {
    const said = { bsize: 4096, blocks: 1000, bfree: 100, bavail: 50, files: 10, ffree: 3 };
    assert.deepEqual(freeOf({ ...said, type: EXT_MAGIC }), { bytes: 327_680, files: 3, type: EXT_MAGIC });
    assert.equal(freeOf({ ...said, type: 0x9123_683e }).bytes, 204_800);
    assert.equal(freeOf({ ...said, type: 0x9123_683e, files: 0, ffree: 0 }).files, undefined);
  });

  test('is told as far as it can be looked at, and nothing fails for it', () => {
    const config = { ...defaultConfig(), images: { ...defaultConfig().images, directory: '/var/lib' } };
    const looked = lookAtRoom(() => [process.pid], config);
    assert.ok((looked.need?.processes.bytes ?? 0) > MIB);
    assert.equal(looked.unknown, undefined);
    const failed = lookAtRoom(
      () => [],
      config,
      () => {
        throw new Error('ESTALE: stale file handle');
      },
    );
    assert.deepEqual(failed, {
      unknown: 'whether there is room for the images cannot be told: ESTALE: stale file handle',
    });
    const { state, found } = roomFinding(failed, 1024 * MIB);
    assert.deepEqual([state, found], ['advice', failed.unknown]);
    const noRules = lookAtRoom(() => {
      throw new Error('EIO');
    }, config);
    assert.match(noRules.unknown ?? '', /EIO$/);
    const some = judge(
      { processes: { bytes: 1, files: 1 }, tmpfsBytes: 0, unread: { count: 2, first: 'x: EIO' } },
      roomOf({ directory: '/', bytes: 2 ** 40, files: undefined, type: EXT_MAGIC }),
    );
    assert.match(some.unknown ?? '', /^images may need more than is said: 2 of what is protected .* x: EIO$/);
    assert.equal(roomFinding(some, 1024 * MIB).state, 'advice');
  });
});
