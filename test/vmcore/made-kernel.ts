import { x86_64 } from '../../src/arch/x86-64/index.ts';
import type { ElfNote } from '../../src/system/elf.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import type { BtfLayouts } from '../../src/vmcore/btf-layouts.ts';
import type { CpuNote } from '../../src/vmcore/elf-notes.ts';
import { AddressError, BindError, SymbolError } from '../../src/vmcore/errors.ts';
import type { Fields, StructDecl } from '../../src/vmcore/field.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import type { Layouts, MemberLayout } from '../../src/vmcore/layout.ts';
import { KernelMemory } from '../../src/vmcore/memory.ts';
import { MappedMemory, type PhysicalMemory, SharedMapping } from '../../src/vmcore/physical.ts';
import type { StoredPages } from '../../src/vmcore/stored-pages.ts';
import { type Bound, Structures } from '../../src/vmcore/view.ts';
import { laterLayouts, openFixture, type Release } from './fixtures.ts';
import { TableBuilder } from './tables.ts';

const DIRECT_MAP = 0xffff_8880_0000_0000n;
const VMEMMAP = 0xffff_ea00_0000_0000n;
/** Where the second node's memory begins: behind a hole. */
const SECOND_NODE = 0x1_4000_0000;
const SECOND_NODE_PAGES = 64;
/** Pages of a CPU's area. */
const CPU_PAGES = 4;

/** Of these only the layouts are used, which never change. */
const fixtures = new Map<Release, Kernel>();

function fixtureOf(release: Release): Kernel {
  const known = fixtures.get(release) ?? openFixture(release);
  fixtures.set(release, known);
  return known;
}

/** What all kernels share that are made with the same layouts. */
const shared = new WeakMap<Layouts, Structures>();

/** The structures of a fixture's layouts, with those that were declared after the fixture was made. */
function structuresOf(fixture: Release, release: string, layouts: Layouts): Structures {
  const known = shared.get(layouts) ?? new Structures(laterLayouts(fixture, layouts), release);
  shared.set(layouts, known);
  return known;
}

interface Slab {
  readonly physical: number;
  readonly bytes: Buffer;
}

/**
 * A kernel made by hand: the layouts of a fixture's release, and memory that a test fills in. It has two NUMA
 * nodes with a hole between them: structures are in the first, pages of files and of processes in the second.
 */
export class MadeKernel implements Kernel {
  readonly path = 'a kernel made by hand';
  readonly release: string;
  readonly architecture = x86_64;
  readonly vmcoreinfo = new Map<string, string>();
  readonly notes: ElfNote[] = [];
  readonly cpuNotes: CpuNote[] = [];
  readonly warnings = [];
  isAlive = false;
  stored: StoredPages | undefined;
  readonly cpus: readonly number[];
  readonly presentCpus: readonly number[];
  readonly possibleCpus: readonly number[];
  readonly layouts: BtfLayouts;
  readonly #fixture: Release;
  readonly memory: KernelMemory;
  readonly physical: PhysicalMemory;
  readonly tables = new TableBuilder(4);
  readonly symbols = new Map<string, bigint>();
  readonly enumerators = new Map<string, number>();
  /** Names of functions, by addresses in them. */
  readonly text = new Map<bigint, string>();
  readonly #slabs: readonly Slab[];
  readonly #bound = new WeakMap<StructDecl<Fields>, unknown>();
  #nextFrame = SECOND_NODE / PAGE_SIZE;

  constructor(release: Release, cpus = 1) {
    const fixture = fixtureOf(release);
    this.release = fixture.release;
    this.layouts = fixture.layouts;
    this.#fixture = release;
    this.cpus = Array.from({ length: cpus }, (_, cpu) => cpu);
    this.presentCpus = this.cpus;
    this.possibleCpus = this.cpus;
    const descriptors = SECOND_NODE_PAGES * this.sizeOf('page');
    const vmemmap = { physical: 0x1000_0000, bytes: Buffer.alloc(descriptors) };
    this.#slabs = [
      { physical: 0, bytes: this.tables.bytes },
      vmemmap,
      { physical: SECOND_NODE, bytes: Buffer.alloc(SECOND_NODE_PAGES * PAGE_SIZE) },
    ];
    this.physical = new MappedMemory(this.#slabs.map(rangeOf));
    const vmemmapStart = this.pfnToPage(SECOND_NODE / PAGE_SIZE);
    this.memory = new KernelMemory(this.physical, {
      table: this.tables.table,
      start: x86_64.kernelSpace.start,
      linear: [
        { start: DIRECT_MAP, end: DIRECT_MAP + 0x2_0000_0000n, physical: 0 },
        { start: vmemmapStart, end: vmemmapStart + BigInt(descriptors), physical: vmemmap.physical },
      ],
    });
  }

  get #structures(): Structures {
    return structuresOf(this.#fixture, this.release, this.layouts);
  }

  get #all(): Layouts {
    return this.#structures.layouts;
  }

  /** The address of a fresh zeroed structure. */
  allocate(structName: string): bigint {
    return this.#pages(Math.ceil(this.sizeOf(structName) / PAGE_SIZE));
  }

  /** The same for a per-CPU variable, which gets the symbol `name`. */
  allocatePerCpu(name: string, structName: string): void {
    if (this.sizeOf(structName) > CPU_PAGES * PAGE_SIZE) throw new Error(`struct ${structName} is too large`);
    this.symbols.set(name, this.#pages(CPU_PAGES * this.cpus.length));
  }

  /** A variable of eight bytes with a name. */
  variable(name: string, value: bigint): void {
    const address = this.symbols.get(name) ?? this.#pages(1);
    this.symbols.set(name, address);
    this.write(address, word(value));
  }

  /** A fresh page of the second node, filled with a byte: its frame number. */
  frame(fill = 0): number {
    const pfn = this.#nextFrame++;
    this.#at(pfn * PAGE_SIZE).fill(fill, 0, PAGE_SIZE);
    return pfn;
  }

  /** Writes a member (a path) of the structure at an address. */
  set(structName: string, address: bigint, path: string, value: bigint | number): void {
    const layout = this.#member(structName, path);
    this.write(address + BigInt(layout.offsetBytes), word(value).subarray(0, layout.sizeBytes));
  }

  /** The address of a member of the structure at an address. */
  memberAddress(structName: string, address: bigint, path: string): bigint {
    return address + BigInt(this.#member(structName, path).offsetBytes);
  }

  /** Writes bytes at a kernel address. */
  write(address: bigint, bytes: Uint8Array): void {
    this.#at(this.memory.translate(address)).set(bytes);
  }

  bind<F extends Fields>(decl: StructDecl<F>): Bound<F> {
    const known = this.#bound.get(decl);
    if (known !== undefined) return known as Bound<F>;
    const bound = this.#structures.bind(decl, this.memory);
    this.#bound.set(decl, bound);
    return bound;
  }

  hasMember(structName: string, path: string): boolean {
    return this.#all.member(structName, path) !== undefined;
  }

  sizeOf(structName: string): number {
    const size = this.#all.sizeOf(structName);
    if (size === undefined) throw new BindError(structName, undefined, this.release, 'does not exist');
    return size;
  }

  enumerator(name: string): number {
    const value = this.enumerators.get(name) ?? this.layouts.enumerator(name);
    if (value === undefined) throw new SymbolError(name, this.release, 'enumerator');
    return value;
  }

  symbol(name: string): bigint {
    const address = this.symbols.get(name);
    if (address === undefined) throw new SymbolError(name, this.release);
    return address;
  }

  symbolMaybe(name: string): bigint | undefined {
    return this.symbols.get(name);
  }

  symbolAt(address: bigint): { name: string; offset: number } | undefined {
    const name = this.text.get(address);
    return name === undefined ? undefined : { name, offset: 0 };
  }

  /** Each CPU's area is some pages behind the one before it. */
  perCpu(symbolOrAddress: string | bigint, cpu: number): bigint {
    const base = typeof symbolOrAddress === 'string' ? this.symbol(symbolOrAddress) : symbolOrAddress;
    return base + BigInt(cpu * CPU_PAGES * PAGE_SIZE);
  }

  pfnToPage(pfn: number): bigint {
    return VMEMMAP + BigInt(pfn * this.sizeOf('page'));
  }

  pageToPfn(page: bigint): number {
    const pfn = Number(page - VMEMMAP) / this.sizeOf('page');
    if (!Number.isInteger(pfn) || pfn < 0) throw new AddressError(page, 'is not a struct page');
    return pfn;
  }

  pageToVirtual(page: bigint): bigint {
    return this.physicalToVirtual(this.pageToPfn(page) * PAGE_SIZE);
  }

  physicalToVirtual(physical: number): bigint {
    return DIRECT_MAP + BigInt(physical);
  }

  close(): void {
    this.physical.close();
  }

  /** Fresh zeroed pages in a row. */
  #pages(count: number): bigint {
    const first = this.tables.allocate();
    for (let i = 1; i < count; i++) this.tables.allocate();
    return this.physicalToVirtual(first);
  }

  #member(structName: string, path: string): MemberLayout {
    const layout = this.#all.member(structName, path);
    if (layout === undefined) throw new BindError(structName, path, this.release, 'does not exist');
    return layout;
  }

  #at(physical: number): Buffer {
    const slab = this.#slabs.find(
      (one) => physical >= one.physical && physical < one.physical + one.bytes.length,
    );
    if (slab === undefined) throw new AddressError(physical, 'is not in the memory made by hand');
    return slab.bytes.subarray(physical - slab.physical);
  }
}

function rangeOf({ physical, bytes }: Slab) {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const mapping = { fileOffset: 0, length: bytes.length, address: 0, data, unmap: () => undefined };
  return { physical, length: bytes.length, mapping: new SharedMapping(() => mapping), offset: 0 };
}

/** A number as the machine stores it, in eight bytes. */
function word(value: bigint | number): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)));
  return buffer;
}
