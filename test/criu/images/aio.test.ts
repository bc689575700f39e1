import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { aioRingEntry } from '../../../src/criu/images/mm.ts';
import { isPrivate, vmaEntry } from '../../../src/criu/images/vma.ts';
import { MAP_SHARED } from '../../../src/system/abi.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { areaOf } from '../processes.ts';

/** VMA_AREA_AIORING of criu/include/image.h; such an area is no regular one. */
const STATUS = 1 << 13;
const AT = 0x7f00_0000_0000;

/** The pages of the ring that io_setup(2) makes (ioctx_alloc and aio_setup_ring, fs/aio.c). */
function pagesFor(requests: number, cpus: number): number {
  const events = Math.max(requests, 4 * cpus) * 2 + 2;
  return Math.ceil((32 + 32 * events) / PAGE_SIZE);
}

describe('images of AIO contexts', () => {
  it('ask for so many requests that the ring is as large as it was', () => {
    for (const cpus of [1, 2, 64, 256]) {
      for (const requests of [1, 30, 31, 61, 62, 63, 64, 126, 127, 256, 1000, 65536]) {
        const pages = pagesFor(requests, cpus);
        const { id, nrReq = 0, ringLen } = aioRingEntry(AT, AT + pages * PAGE_SIZE);
        assert.deepEqual([id, ringLen], [BigInt(AT), pages * PAGE_SIZE]);
        assert.equal(pagesFor(nrReq, cpus), pages, `${requests} on ${cpus} CPUs, ${nrReq}`);
      }
    }
  });

  it('have the ring as an area that CRIU moves to its place, with its pages', () => {
    const area = areaOf(AT, 2, { kind: 'aio-ring', prot: 3, locked: true, shmid: 7 });
    const { status, flags, prot, fd, shmid } = vmaEntry(area);
    assert.deepEqual([status, flags, prot, fd, shmid], [STATUS, MAP_SHARED, 3, -1n, 7n]);
    assert.ok(isPrivate(area));
  });
});
