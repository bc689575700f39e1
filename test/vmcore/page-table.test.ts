import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { x86_64 } from '../../src/arch/x86-64/index.ts';
import { mmStruct } from '../../src/linux/mm-types.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { UserMemory } from '../../src/linux/readers/user-memory.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { AddressError, ContainerError } from '../../src/vmcore/errors.ts';
import { KernelMemory } from '../../src/vmcore/memory.ts';
import {
  type MappedRun,
  translateKernelPage,
  walkPages,
  walkUserPages,
} from '../../src/vmcore/page-table.ts';
import { Structures, struct, u64 } from '../../src/vmcore/view.ts';
import { openFixture, releases, truthOf } from './fixtures.ts';
import { HUGE, NX, PRESENT, PROTNONE, TableBuilder } from './tables.ts';

const MIB2 = 2 << 20;
const GIB = 1 << 30;

function runs(builder: TableBuilder, start: number, end: number): MappedRun[] {
  return [...walkPages(builder.memory(), builder.table, start, end)];
}

for (const levels of [4, 5] as const) {
  describe(`page tables of ${levels} levels`, () => {
    const top = levels === 4 ? 0x7fff_0000_0000 : 0xff_0000_0000_0000;

    it('translate pages of 4 KiB, 2 MiB and 1 GiB', () => {
      const builder = new TableBuilder(levels);
      builder.set(BigInt(top), 0x1234_5000n | PRESENT | NX);
      builder.set(BigInt(top + 4 * GIB), 0x12_4000_0000n | PRESENT | HUGE | 0x1000n, 3);
      builder.set(BigInt(top + GIB), 0x40_0000n | PRESENT | HUGE, 2);
      const at = (address: number): number | undefined =>
        translateKernelPage(builder.memory(), builder.table, address / PAGE_SIZE);
      assert.equal(at(top), 0x1234_5000);
      assert.equal(at(top + PAGE_SIZE), undefined);
      assert.equal(at(top + GIB + 5 * PAGE_SIZE), 0x40_0000 + 5 * PAGE_SIZE);
      assert.equal(at(top + 4 * GIB + 7 * MIB2 + PAGE_SIZE), 0x12_4000_0000 + 7 * MIB2 + PAGE_SIZE);
      assert.equal(at(top + 2 * GIB), undefined);
    });

    it('are walked as runs of adjacent frames of the same kind', () => {
      const builder = new TableBuilder(levels);
      for (let i = 0; i < 6; i++)
        builder.set(BigInt(top + i * PAGE_SIZE), BigInt((100 + i) * PAGE_SIZE) | PRESENT);
      builder.set(BigInt(top + 6 * PAGE_SIZE), BigInt(200 * PAGE_SIZE) | PRESENT);
      builder.set(BigInt(top + 7 * PAGE_SIZE), 0x8000n << 1n);
      builder.set(BigInt(top + MIB2), BigInt(MIB2 * 3) | PRESENT | HUGE, 2);
      const found = runs(builder, top + PAGE_SIZE, top + MIB2 + 3 * PAGE_SIZE);
      assert.deepEqual(
        found.map(({ address, pages, kind, pfn, pageSizeBytes }) => [
          (address - top) / PAGE_SIZE,
          pages,
          kind,
          pfn,
          pageSizeBytes,
        ]),
        [
          [1, 5, 'present', 101, PAGE_SIZE],
          [6, 1, 'present', 200, PAGE_SIZE],
          [7, 1, 'swap', 0, PAGE_SIZE],
          [512, 3, 'present', (MIB2 * 3) / PAGE_SIZE, MIB2],
        ],
      );
    });

    it('give the frame of a PROT_NONE page, which the kernel keeps inverted', () => {
      const builder = new TableBuilder(levels);
      const inverted = (~BigInt(321 * PAGE_SIZE) & 0x000f_ffff_ffff_f000n) | PROTNONE;
      builder.set(BigInt(top), inverted);
      const [run] = runs(builder, top, top + PAGE_SIZE);
      assert.equal(run?.kind, 'present');
      assert.equal(run?.pfn, 321);
    });
  });
}

describe('damaged page tables', () => {
  it('are refused where a table contains itself', () => {
    const builder = new TableBuilder(4);
    builder.set(0n, BigInt(builder.table.root) | PRESENT, 4);
    assert.throws(() => runs(builder, 0, 2 ** 47), ContainerError);
  });

  it('are refused where a table lies outside memory, or a huge page where none can be', () => {
    const builder = new TableBuilder(4);
    builder.set(0n, 0xffff_ffff_f000n | PRESENT, 4);
    assert.throws(() => runs(builder, 0, PAGE_SIZE), AddressError);
    assert.throws(() => translateKernelPage(builder.memory(), builder.table, 0), AddressError);
    const huge = new TableBuilder(4);
    huge.set(0n, PRESENT | HUGE, 4);
    assert.throws(() => runs(huge, 0, PAGE_SIZE), /leaf at level 4/);
    assert.throws(() => translateKernelPage(huge.memory(), huge.table, 0), /huge page at level 4/);
  });
});

describe('kernel memory behind page tables', () => {
  const base = 0xffff_c900_0000_0000n;
  const builder = new TableBuilder(4);
  const first = builder.allocate();
  builder.allocate();
  const second = builder.allocate();
  builder.set(base, BigInt(first) | PRESENT);
  builder.set(base + 4096n, BigInt(second) | PRESENT);
  builder.bytes.fill(0x11, first, first + PAGE_SIZE);
  builder.bytes.fill(0x22, second, second + PAGE_SIZE);
  const memory = new KernelMemory(builder.memory(), {
    table: builder.table,
    start: x86_64.kernelSpace.start,
    linear: [],
  });

  it('is read across pages that are not adjacent', () => {
    assert.deepEqual(memory.read(base + 4090n, 12), Buffer.from(`${'11'.repeat(6)}${'22'.repeat(6)}`, 'hex'));
    assert.equal(memory.u64(base + 4092n), 0x2222_2222_1111_1111n);
    assert.equal(memory.contiguous(base + 4092n, 8), undefined);
    assert.equal(memory.cstring(base + 4090n, 10), `${'\x11'.repeat(6)}${'""'.repeat(2)}`);
  });

  it('holds structures that lie across such pages', () => {
    const { layouts } = openFixture('debian13');
    const decl = struct('pt_regs', { r15: u64, ip: u64, r12: u64, sp: u64 });
    const view = new Structures(layouts, 'test').bind(decl, memory).at(base + 4096n - 28n);
    assert.equal(view.r15, 0x1111_1111_1111_1111n);
    assert.equal(view.r12, 0x2222_2222_1111_1111n);
    assert.equal(view.sp, 0x2222_2222_2222_2222n);
  });

  it('is not read where it is not mapped', () => {
    assert.throws(() => memory.read(base + 8190n, 4), /is not mapped by the kernel/);
    assert.throws(() => memory.translate(0x7fff_0000_0000n), /is not a kernel address/);
    assert.throws(() => memory.read(base, 2 ** 31), /not believed/);
  });
});

for (const release of releases) {
  describe(`user memory of ${release}`, () => {
    const kernel = openFixture(release);
    const { program } = truthOf(release);
    const task = taskAt(kernel, findTaskByPid(kernel, program.pid) ?? 0n);
    const mm = kernel.bind(mmStruct).at(task.mm);
    const { pgd } = mm;
    const user = new UserMemory(kernel, mm);
    const textAt = (address: number, length: number) => {
      const read = user.read(BigInt(address), length);
      return read.kind === 'bytes' ? read.bytes.toString() : read.kind;
    };

    it('is what the program wrote, page by page', () => {
      // The first was taken away from the program with mprotect(PROT_NONE).
      for (let i = 0; i < 300; i++) {
        const text = `area ${i}\0`;
        assert.equal(textAt(program.areas + i * 2 * PAGE_SIZE, text.length), text);
        assert.equal(textAt(program.areas + (i * 2 + 1) * PAGE_SIZE, 1), 'unmapped');
      }
    });

    it('has a page that mprotect(PROT_NONE) took away from the program', () => {
      const found = [...walkUserPages(kernel, pgd, program.areas, program.areas + PAGE_SIZE)];
      assert.equal(found[0]?.kind, 'present');
      assert.equal(
        Buffer.from(kernel.physical.view((found[0]?.pfn ?? 0) * PAGE_SIZE, 7)).toString(),
        'area 0\0',
      );
    });

    it('has transparent huge pages', () => {
      const found = [...walkUserPages(kernel, pgd, program.huge, program.huge + 2 * MIB2)];
      assert.equal(
        found.reduce((sum, { pages }) => sum + pages, 0),
        1024,
      );
      for (const { pageSizeBytes, pfn } of found) {
        assert.equal(pageSizeBytes, MIB2);
        assert.equal(pfn % 512, 0);
      }
    });
  });
}
