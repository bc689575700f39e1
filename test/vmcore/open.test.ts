import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { FormatError, VmcoreError } from '../../src/vmcore/errors.ts';
import { holesProblem } from '../../src/vmcore/mapping.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { dumpBytes, dumpPath, openFixture, releases, scratch, truthOf } from './fixtures.ts';

const RELEASE_NAMES = { debian13: /^6\.12\.\d+\+deb13-cloud-amd64$/, debian12: /^6\.1\.0-\d+-cloud-amd64$/ };

for (const release of releases) {
  describe(`a dump of ${release}`, () => {
    it('says which kernel it is and how it was laid out', () => {
      const kernel = openFixture(release);
      assert.match(kernel.release, RELEASE_NAMES[release]);
      assert.equal(kernel.memory.addressSpace.table.levels, 5);
      assert.deepEqual(kernel.cpus, [0, 1]);
      assert.deepEqual(kernel.warnings, []);
    });

    it('has the symbols where the guest had them', () => {
      const kernel = openFixture(release);
      const { symbols } = truthOf(release);
      assert.ok(symbols.size >= 4);
      for (const [name, address] of symbols) assert.equal(kernel.symbol(name), address, name);
    });

    it('names what the CPUs were executing', () => {
      const kernel = openFixture(release);
      assert.equal(kernel.cpuNotes.length, 2);
      for (const { registers } of kernel.cpuNotes)
        assert.match(kernel.symbolAt(registers.ip)?.name ?? '', /native_safe_halt/);
    });

    it('translates kernel text, direct map, per-CPU and vmemmap addresses to the same memory as each other', () => {
      const kernel = openFixture(release);
      const init = kernel.symbol('init_task');
      const physical = kernel.memory.translate(init);
      assert.equal(kernel.memory.translate(kernel.physicalToVirtual(physical)), physical);
      const frame = Math.floor(physical / 4096);
      assert.equal(kernel.pageToPfn(kernel.pfnToPage(frame)), frame);
      assert.equal(kernel.pageToVirtual(kernel.pfnToPage(frame)), kernel.physicalToVirtual(frame * 4096));
      const [first, second] = [0, 1].map((cpu) => kernel.perCpu('runqueues', cpu));
      assert.notEqual(first, second);
    });

    it('is found in memory where the dump carries no VMCOREINFO note', () => {
      const bytes = dumpBytes(release);
      bytes.write('XMCOREINFO', bytes.indexOf('VMCOREINFO\0'), 'latin1');
      writeFileSync(scratch('no-note'), bytes);
      assert.equal(
        openKernel(scratch('no-note')).symbol('init_task'),
        openFixture(release).symbol('init_task'),
      );
    });
  });
}

describe('a file that is no vmcore', () => {
  const refuse = (name: string, bytes: Uint8Array, message: RegExp): void => {
    writeFileSync(scratch(name), bytes);
    assert.throws(
      () => openKernel(scratch(name)),
      (error: unknown) => {
        assert.ok(error instanceof FormatError, String(error));
        assert.match(error.message, message);
        return true;
      },
    );
  };

  it('is refused with what is wrong with it', () => {
    refuse('empty', Buffer.alloc(0), /is empty/);
    refuse('text', Buffer.from('#!/bin/sh\necho hello\n'), /is no vmcore/);
    refuse('zeroes', Buffer.alloc(1 << 20), /is no vmcore/);
    refuse('short', Buffer.from('\x7fELF', 'latin1'), /truncated: the ELF header/);
    refuse(
      'flat',
      Buffer.concat([Buffer.from('makedumpfile\0\0\0\0'), Buffer.alloc(8192)]),
      /damaged: the block at byte 4096/,
    );
    const elf = dumpBytes('debian13').subarray(0, 4096);
    const changed = (at: number, value: number): Buffer => {
      const copy = Buffer.from(elf);
      copy.writeUInt16LE(value, at);
      return copy;
    };
    refuse('executable', changed(16, 2), /not a core/);
    refuse('arm', changed(18, 183), /another architecture/);
    refuse('elf32', changed(4, 0x101), /64-bit/);
  });

  it('is called what it is, with what to do about it', () => {
    const raw = Buffer.alloc(2 << 20);
    raw.write('OSRELEASE=6.1.0\nSYMBOL(init_uts_ns)=ffffffff81000000\n', 5 * 4096, 'latin1');
    const marked = (at: number, magic: string): Buffer => {
      const bytes = Buffer.alloc(8192);
      bytes.write(magic, at, 'latin1');
      return bytes;
    };
    refuse('gzip', gzipSync(dumpBytes('debian13').subarray(0, 9000)), /is compressed with gzip: unpack it/);
    refuse('zstd', zstdCompressSync(Buffer.alloc(9000)), /is compressed with zstd: unpack it/);
    refuse('xz', marked(0, '\xfd7zXZ\0'), /is compressed with xz/);
    refuse('migration', marked(0, 'QEVM\0\0\0\x03'), /migration stream .*dump-guest-memory/);
    refuse('save', marked(0, 'LibvirtQemudSave'), /saved state of libvirt .*virsh dump --memory-only/);
    refuse('lime', marked(0, 'EMiL\x01'), /LiME/);
    refuse('swap', marked(4086, 'S1SUSPEND'), /hibernation image/);
    refuse('raw', raw, /is raw memory, .*dump-guest-memory/);
  });

  it('is not mapped where reading its holes would kill the reader', () => {
    const sparse = { size: 100 << 20, blocks: (20 << 20) / 512 };
    const tmpfs = (bavail: number, blocks = 50_000, type = 0x01021994) => ({
      type,
      blocks,
      bavail,
      bsize: 4096,
    });
    assert.match(
      holesProblem(sparse, tmpfs(100)) ?? '',
      /has holes of 80 MiB, .* on a tmpfs with 1 MiB free: copy it/,
    );
    assert.equal(holesProblem(sparse, tmpfs(40_000)), undefined);
    assert.equal(holesProblem(sparse, tmpfs(0, 0)), undefined);
    assert.equal(holesProblem(sparse, tmpfs(0, 50_000, 0xef53)), undefined);
    assert.equal(holesProblem({ size: 100 << 20, blocks: (100 << 20) / 512 }, tmpfs(0)), undefined);
  });

  it('is refused if it does not exist or is a directory', () => {
    assert.throws(() => openKernel(scratch('nothing')), /nothing: cannot be opened: no such file/);
    assert.throws(() => openKernel('/'), FormatError);
  });
});

describe('a truncated dump', () => {
  it('is opened as far as it goes, and says that it is truncated', () => {
    const bytes = dumpBytes('debian13');
    const step = 65_536 + 123;
    let opened = 0;
    writeFileSync(scratch('truncated'), bytes);
    for (let length = Math.floor((bytes.length - 1) / step) * step; length >= 0; length -= step) {
      truncateSync(scratch('truncated'), length);
      try {
        const kernel = openKernel(scratch('truncated'));
        assert.match(kernel.warnings.join(), /truncated: the last \d+ bytes/);
        kernel.close();
        opened++;
      } catch (error) {
        assert.ok(error instanceof VmcoreError, String(error));
      }
    }
    assert.ok(opened > 0);
  });

  it('never reaches past the end of the file', () => {
    const bytes = dumpBytes('debian13');
    writeFileSync(scratch('cut'), bytes.subarray(0, bytes.length - 5000));
    const kernel = openKernel(scratch('cut'));
    const last = openFixture('debian13').physical.ranges.at(-1);
    assert.ok(last !== undefined);
    assert.throws(() => kernel.physical.view(last.physical + last.length - 8, 8), /is not in the dump/);
    assert.equal(kernel.physical.has(last.physical + last.length - 8, 8), false);
  });
});

it('closes what it opened', () => {
  openKernel(dumpPath('debian13')).close();
});
