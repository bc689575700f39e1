import assert from 'node:assert/strict';
import { mock, suite, test } from 'node:test';
import { swapAreaAt, untriedSwap } from '../../../src/linux/readers/swap-areas.ts';
import {
  SwapEntries,
  swapAddress,
  swapEntriesOf,
  swapPlace,
} from '../../../src/linux/readers/swap-entries.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { type Release, releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';
import { everythingStored, type MadeSwap, MadeSwapArea } from '../../vmcore/made-swap.ts';

/** An area whose slots 5 to 9 are in use, where everything that is stored can be read. */
function made(release: Release, area: MadeSwap = {}): MadeSwapArea {
  const kernel = new MadeKernel(release);
  kernel.stored = everythingStored;
  const swap = new MadeSwapArea(kernel, area);
  for (let slot = 5; slot < 10; slot++) swap.use(slot);
  return swap;
}

/** Why a slot cannot be had. */
function refusal(
  kernel: MadeKernel,
  slot: number,
  type = 0,
  owner: 'process' | 'shared' = 'process',
): string {
  const entries = new SwapEntries(kernel);
  assert.equal(entries.addressOf(type, slot, owner), undefined);
  return entries.why;
}

for (const release of releases) {
  suite(`swap entries of ${release}`, () => {
    test('of a page that is in the area only have its address there', () => {
      const { kernel } = made(release);
      const address = swapEntriesOf(kernel).addressOf(0, 7, 'process');
      assert.equal(address, swapAddress(0, 7));
      assert.deepEqual(swapPlace(address ?? 0), { type: 0, offset: 7 * PAGE_SIZE });
    });

    test('whose page is in the swap cache have that, dirty, under writeback or clean', () => {
      for (const flags of [['uptodate', 'dirty'], ['uptodate', 'writeback'], ['uptodate']] as const) {
        const swap = made(release);
        swap.use(6, 0x41);
        const pfn = swap.cache(6, 0xab, flags);
        assert.equal(swapEntriesOf(swap.kernel).addressOf(0, 6, 'process'), pfn * PAGE_SIZE);
      }
    });

    test('whose page is being read have the area: what is in memory is no content yet', () => {
      const swap = made(release);
      swap.use(6, 0x41);
      swap.cache(6, 0, ['locked']);
      assert.equal(swapEntriesOf(swap.kernel).addressOf(0, 6, 'process'), swapAddress(0, 6));
    });

    test('whose page has no content and is not being read are refused: the area may be older', () => {
      const swap = made(release);
      swap.use(6, 0x41);
      swap.cache(6, 0, []);
      assert.match(refusal(swap.kernel, 6), /slot 6 of the swap area vda2 could not be read, or is poisoned/);
    });

    test('whose page is poisoned are refused, whatever else it is', () => {
      for (const flags of [['uptodate'], ['locked'], []] as const) {
        const swap = made(release);
        swap.use(6, 0x41);
        swap.cache(6, 0, [...flags, 'hwpoison']);
        assert.match(refusal(swap.kernel, 6), /has a poisoned page in the swap cache/);
      }
    });

    test('whose page is poisoned within a large folio are refused, and its others are not', () => {
      const swap = made(release);
      const { kernel } = swap;
      for (const slot of [5, 6]) swap.use(slot, 0x41);
      const pfn = swap.cache(5, 1, ['uptodate']);
      const second = kernel.pfnToPage(kernel.frame(2));
      kernel.set('page', second, 'flags', 1n << BigInt(kernel.enumerator('PG_hwpoison')));
      swap.cacheEntry(6, kernel.pfnToPage(pfn));
      assert.equal(swapEntriesOf(kernel).addressOf(0, 5, 'process'), pfn * PAGE_SIZE);
      assert.match(refusal(kernel, 6), /slot 6 of the swap area vda2 has a poisoned page/);
    });

    test('in a large folio have the frame of their own page', () => {
      const swap = made(release);
      swap.use(5, 0x41);
      swap.use(6, 0x41);
      const pfn = swap.cache(5, 1, ['uptodate']);
      swap.kernel.frame(2);
      swap.cacheEntry(6, swap.kernel.pfnToPage(pfn));
      assert.equal(swapEntriesOf(swap.kernel).addressOf(0, 6, 'process'), (pfn + 1) * PAGE_SIZE);
    });

    test('behind the first 64 MiB are found in the cache of their part, by either way of counting', () => {
      const slot = (1 << 14) + 3;
      for (const index of [3, slot]) {
        const swap = made(release, { slots: slot + 1, sectors: (slot + 1) * 8 });
        const { kernel } = swap;
        // The map and the caches are larger than what a made area has.
        const pages = Array.from({ length: 8 }, () => kernel.tables.allocate());
        kernel.set('swap_info_struct', swap.info, 'swap_map', kernel.physicalToVirtual(pages[0] ?? 0));
        kernel.write(kernel.physicalToVirtual((pages[0] ?? 0) + slot), Uint8Array.of(0x41));
        const pfn = swap.cache(5, 0xee, ['uptodate'], slot);
        kernel.set('address_space', swap.spaces, 'i_pages.xa_head', 0n);
        const space = swap.spaces + BigInt(kernel.sizeOf('address_space'));
        putAt(kernel, space, index, kernel.pfnToPage(pfn));
        assert.equal(swapEntriesOf(kernel).addressOf(0, slot, 'process'), pfn * PAGE_SIZE, `${index}`);
      }
    });

    test('what the cache remembers of a page that has left it is no page', () => {
      const swap = made(release);
      swap.cacheEntry(6, 0x1235n);
      assert.equal(swapEntriesOf(swap.kernel).addressOf(0, 6, 'process'), swapAddress(0, 6));
    });

    test('are refused where the map and the cache differ', () => {
      const lost = made(release);
      lost.use(6, 0x41);
      assert.match(refusal(lost.kernel, 6), /slot 6 of the swap area vda2 is in the swap cache by its map/);
      const more = made(release);
      more.cache(6, 0, ['uptodate']);
      assert.match(refusal(more.kernel, 6), /is not in the swap cache by its map, which differs/);
    });

    test('are refused where the cache has a page of another slot', () => {
      const swap = made(release);
      swap.use(6, 0x41);
      swap.cache(6, 0, ['uptodate'], 9);
      assert.match(refusal(swap.kernel, 6), /has a page in the swap cache that does not belong there/);
    });

    test('are refused if nobody uses the slot, it is bad, or of the other kind of owner', () => {
      for (const usage of [0, 0x40, 0x3f, 0xbf]) {
        const swap = made(release);
        swap.use(6, usage);
        assert.match(refusal(swap.kernel, 6), /slot 6 of the swap area vda2 is not in use like that/);
      }
      const { kernel } = made(release);
      assert.match(refusal(kernel, 6, 0, 'shared'), /is not in use like that \(0x1 in its map\)/);
      const shared = made(release);
      shared.use(6, 0xbf);
      assert.equal(swapEntriesOf(shared.kernel).addressOf(0, 6, 'shared'), swapAddress(0, 6));
    });

    test('may be shared by processes after a fork, also by more than one byte counts', () => {
      const swap = made(release);
      swap.use(6, 0x3e | 0x80);
      assert.equal(swapEntriesOf(swap.kernel).addressOf(0, 6, 'process'), swapAddress(0, 6));
    });

    test('are refused outside of the area, and of an area that there is not', () => {
      const { kernel } = made(release);
      assert.match(refusal(kernel, 0), /slot 0 of the swap area vda2 is not within it/);
      assert.match(refusal(kernel, 64), /slot 64 of the swap area vda2 is not within it \(64\)/);
      assert.match(refusal(kernel, 6, 1), /swap area 1 is not in use/);
      assert.equal(new SwapEntries(kernel).isArea(1), false);
      assert.equal(new SwapEntries(kernel).isArea(0), true);
    });

    test('are refused if zswap holds any pages', () => {
      const { kernel } = made(release);
      kernel.variable('zswap_stored_pages', 0n);
      assert.notEqual(new SwapEntries(kernel).addressOf(0, 6, 'process'), undefined);
      kernel.variable('zswap_stored_pages', 3n);
      assert.match(refusal(kernel, 6), /compressed in memory \(zswap\), which is not read/);
    });

    test('of a dump without its disks are refused; of a living kernel they are not', () => {
      const { kernel } = made(release);
      kernel.stored = undefined;
      assert.equal(refusal(kernel, 6), 'the dump does not have what is in swap');
      kernel.isAlive = true;
      if (release === 'debian13')
        assert.equal(swapEntriesOf(kernel).addressOf(0, 6, 'process'), swapAddress(0, 6));
      else assert.match(refusal(kernel, 6), /this was tried with Linux 6\.12 only/);
    });

    test('whose page in the cache is of another place in memory are refused', () => {
      const swap = made(release);
      const { kernel } = swap;
      swap.use(6, 0x41);
      const pfn = swap.cache(6, 0xab, ['uptodate']);
      const page = kernel.pfnToPage(pfn);
      kernel.set('page', page, 'index', 77);
      const find = (place: number): number | undefined =>
        swapEntriesOf(kernel).addressOf(0, 6, 'process', place);
      for (const mapping of [0n, 0x1003n]) {
        kernel.set('page', page, 'mapping', mapping);
        assert.equal(find(5), pfn * PAGE_SIZE, 'of no place, or of several');
      }
      kernel.set('page', page, 'mapping', 0x1001n);
      assert.equal(find(77), pfn * PAGE_SIZE);
      assert.equal(find(78), undefined);
      assert.match(swapEntriesOf(kernel).why, /in the swap cache that belongs to place 77 elsewhere/);
      swap.use(6, 0xff);
      assert.match(refusal(kernel, 6, 0, 'shared'), /belongs to place 77 elsewhere/);
    });

    test('in any order are looked up in what was read once', () => {
      const { kernel, ...swap } = made(release, { slots: 192, sectors: 192 * 8 });
      for (const slot of [70, 140]) kernel.write(swap.map + BigInt(slot), Uint8Array.of(1));
      const entries = new SwapEntries(kernel);
      const find = (): (number | undefined)[] =>
        [70, 5, 140, 6].map((slot) => entries.addressOf(0, slot, 'process'));
      const first = find();
      const reads = mock.method(kernel.physical, 'contiguous');
      const binds = mock.method(kernel, 'bind');
      assert.deepEqual(find(), first);
      assert.deepEqual([reads.mock.callCount(), binds.mock.callCount()], [0, 0]);
    });

    test('of more areas than a kernel can have are refused: the last number stands for zeros', () => {
      const { kernel } = made(release);
      kernel.variable('nr_swapfiles', 31n);
      assert.notEqual(new SwapEntries(kernel).addressOf(0, 6, 'process'), undefined);
      kernel.variable('nr_swapfiles', 32n);
      assert.match(refusal(kernel, 6), /has 32 areas/);
    });

    test('are refused with what the store says of their area', () => {
      const { kernel } = made(release);
      kernel.stored = { ...everythingStored, has: () => false, problem: () => 'the disk is gone' };
      assert.equal(refusal(kernel, 6), 'the disk is gone');
    });
  });

  suite(`swap areas of ${release}`, () => {
    const problemOf = (area: MadeSwap): string => {
      const { kernel } = made(release, area);
      return refusal(kernel, 6);
    };

    test('are told with their device and where their slots lie', () => {
      const { kernel } = made(release, {
        extents: [
          [0, 10, 7],
          [10, 54, 40],
        ],
      });
      const { name, slots, device, file, extents } = swapAreaAt(kernel, 0);
      assert.deepEqual([name, slots, file], ['vda2', 64, undefined]);
      assert.deepEqual(device, {
        ...{ name: 'vda2', sectors: 1024, partition: 2, startSector: 2048, partitionUuid: '1234abcd-02' },
        number: (253 << 8) | 2,
        place: '/devices/pci0000:00/0000:00:05.0/virtio2/block/vda/vda2',
      });
      assert.deepEqual(extents, [
        { slot: 0, slots: 10, block: 7 },
        { slot: 10, slots: 54, block: 40 },
      ]);
    });

    test('that are files have their name and file system', () => {
      const { kernel } = made(release, { file: 'swapfile' });
      const { name, file } = swapAreaAt(kernel, 0);
      assert.equal(name, '/swapfile');
      assert.deepEqual([file?.inode, file?.sizeBytes], [12, 64 * PAGE_SIZE]);
    });

    test('that are files are on ext4 or xfs: of others it is not known what their places mean', () => {
      assert.equal(
        swapAreaAt(made(release, { file: 'swapfile', magic: 0x5846_5342 }).kernel, 0).name,
        '/swapfile',
      );
      const f2fs = { file: 'swapfile', magic: 0xf2f5_2010 };
      assert.match(problemOf(f2fs), /swap file \/swapfile is on a file system that is neither ext4 nor xfs/);
    });

    test('on virtual devices are refused by name', () => {
      const on = (disk: string): string =>
        problemOf({ disk, partition: 0, place: ['devices', 'virtual', 'block', disk] });
      assert.match(on('zram0'), /swap area zram0 is in compressed memory \(zram\)/);
      assert.match(on('dm-1'), /swap area dm-1 is on the device mapper \(LVM, encryption\)/);
      assert.match(on('md0'), /swap area md0 is on a RAID of the kernel/);
      assert.match(on('nbd3'), /swap area nbd3 is on nbd3, which is no disk of this machine/);
    });

    test('on what cannot be told from others after a panic are refused before it', () => {
      const place = ['devices', 'pci0000:00', '0000:00:1f.2', 'ata1', 'block', 'sda'];
      const whole = { disk: 'sda', partition: 0, place };
      const part = { disk: 'sda', partition: 2, place: [...place, 'sda2'] };
      assert.match(problemOf(whole), /swap area sda is on sda, which cannot be told from other disks/);
      assert.match(problemOf({ ...part, uuid: '00000000-02' }), /swap area sda2 is on sda2, which cannot/);
      assert.equal(swapAreaAt(made(release, part).kernel, 0).name, 'sda2');
      assert.match(
        problemOf({ file: 'swapfile', fileSystemId: 0 }),
        /the swap file \/swapfile is on a file system without a UUID, which is not read/,
      );
    });

    test('over a network file system, being switched on or off, or not in use are refused', () => {
      assert.match(problemOf({ flags: 0x143 }), /file system without a disk \(a network's\)/);
      assert.match(problemOf({ flags: 0x41 }), /swap area 0 was being switched on or off/);
      assert.match(problemOf({ flags: 0x40 }), /swap area 0 is not in use/);
    });

    test('whose extents leave slots out, overlap, or end behind the device are refused', () => {
      assert.match(problemOf({ extents: [[0, 63, 0]] }), /has 64 slots, and places for 63/);
      assert.match(
        problemOf({
          extents: [
            [0, 10, 0],
            [9, 55, 30],
          ],
        }),
        /damaged: slots from 9 on/,
      );
      assert.match(problemOf({ extents: [[0, 64, 65]] }), /damaged: slots from 0 on are at page 65/);
      assert.match(problemOf({ extents: [] }), /has 64 slots, and places for 0/);
    });

    test('whose device is another than their file says are refused', () => {
      const { kernel, inode } = made(release);
      kernel.set('inode', inode, 'i_rdev', 5);
      assert.match(refusal(kernel, 6), /the swap area \/vda2 is damaged: it is not vda2/);
    });
  });
}

test('areas are read of the series that this was tried with', () => {
  assert.equal(untriedSwap('6.12.118+deb13-cloud-amd64'), undefined);
  assert.match(untriedSwap('6.1.0-57-cloud-amd64') ?? '', /tried with Linux 6\.12 only/);
});

test('a page of zeros is not in the area, since 6.12', () => {
  const swap = made('debian13');
  swap.zero(7);
  // zswap has none of these either.
  swap.kernel.variable('zswap_stored_pages', 3n);
  const address = swapEntriesOf(swap.kernel).addressOf(0, 7, 'process');
  assert.deepEqual(swapPlace(address ?? 0), { type: undefined, offset: 7 * PAGE_SIZE });
});

test('an area that has lost its map of zeros is damaged, since 6.12', () => {
  const { kernel, info } = made('debian13');
  kernel.set('swap_info_struct', info, 'zeromap', 0n);
  assert.match(refusal(kernel, 6), /the swap area vda2 is damaged: it has no zeromap/);
});

/** Puts an entry into an empty cache, with nodes as deep as its index needs. */
function putAt(kernel: MadeKernel, space: bigint, index: number, entry: bigint): void {
  const levels = index < 64 ? 1 : index < 64 ** 2 ? 2 : 3;
  let parent = 0n;
  for (let level = levels - 1; level >= 0; level--) {
    const node = kernel.allocate('xa_node');
    kernel.set('xa_node', node, 'count', 1);
    kernel.set('xa_node', node, 'shift', level * 6);
    kernel.set('xa_node', node, 'parent', parent);
    if (parent === 0n) kernel.set('address_space', space, 'i_pages.xa_head', node | 2n);
    else {
      const slot = Math.floor(index / 64 ** (level + 1)) % 64;
      kernel.set('xa_node', parent, `slots[${slot}]`, node | 2n);
      kernel.set('xa_node', node, 'offset', slot);
    }
    if (level === 0) kernel.set('xa_node', node, `slots[${index % 64}]`, entry);
    parent = node;
  }
}
