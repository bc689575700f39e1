import type { Architecture } from '../arch/index.ts';
import type { ElfNote } from '../system/elf.ts';
import { PAGE_SIZE } from '../system/page.ts';
import type { Bases } from './address-space.ts';
import { Btf } from './btf.ts';
import { BtfLayouts } from './btf-layouts.ts';
import type { DumpSource } from './elf.ts';
import type { CpuNote } from './elf-notes.ts';
import { AddressError, BindError, SymbolError, VmcoreError } from './errors.ts';
import type { Fields, StructDecl } from './field.ts';
import type { Kernel } from './kernel.ts';
import type { VmcoreFile } from './mapping.ts';
import { KernelMemory } from './memory.ts';
import type { PhysicalMemory } from './physical.ts';
import type { StoredPages } from './stored-pages.ts';
import type { SymbolTable } from './symbols.ts';
import { type Bound, Structures } from './view.ts';

/** More BTF than any kernel has. */
const MAX_BTF_BYTES = 64n << 20n;
/** CONFIG_NR_CPUS of the largest kernels (MAXSMP). */
const MAX_CPUS = 8192;

/** What is left of a file when all is known about its format. */
export type OpenedFile = Pick<VmcoreFile, 'path' | 'close'>;

interface Parts {
  readonly file: OpenedFile;
  readonly release: string;
  readonly info: ReadonlyMap<string, string>;
  readonly source: DumpSource;
  readonly memory: KernelMemory;
  readonly symbols: SymbolTable;
  /** BTF from a profile; from the dump if undefined. */
  readonly btf: Uint8Array | undefined;
  readonly bases: Bases;
  /** Of the same kernel, if they were wanted before. */
  readonly structures?: Structures<BtfLayouts>;
}

/** The kernel in a dump, or the living one; BTF is read when the first structure is bound. */
export class DeadKernel implements Kernel {
  readonly path: string;
  readonly release: string;
  readonly architecture: Architecture;
  readonly vmcoreinfo: ReadonlyMap<string, string>;
  readonly cpuNotes: readonly CpuNote[];
  readonly notes: readonly ElfNote[];
  readonly warnings: readonly string[];
  readonly dumpLevel: number | undefined;
  readonly memory: KernelMemory;
  readonly physical: PhysicalMemory;
  readonly isAlive: boolean;
  stored: StoredPages | undefined;
  readonly #parts: Parts;
  readonly #bound = new WeakMap<StructDecl<Fields>, unknown>();
  #structures: Structures<BtfLayouts> | undefined;
  #cpus: readonly number[] | undefined;
  #possibleCpus: readonly number[] | undefined;
  #pageBytes: number | undefined;

  constructor(parts: Parts) {
    const { file, release, info, source, memory } = parts;
    this.path = file.path;
    this.release = release;
    this.architecture = source.architecture;
    this.vmcoreinfo = info;
    this.cpuNotes = source.cpuNotes;
    this.notes = source.notes;
    this.warnings = source.warnings;
    this.dumpLevel = source.dumpLevel;
    this.memory = memory;
    this.physical = source.physical;
    this.isAlive = source.isAlive === true;
    this.#parts = parts;
    this.#structures = parts.structures;
  }

  /**
   * The same kernel, of which nothing has been looked at yet but what never changes.
   * @param physical its memory, if that is not this one's: the same in all that was read to find the kernel,
   * its symbols and its types
   */
  anew(physical: PhysicalMemory = this.physical): DeadKernel {
    return new DeadKernel({
      ...this.#parts,
      source: { ...this.#parts.source, physical },
      memory: new KernelMemory(physical, this.memory.addressSpace),
      structures: this.#structures,
    });
  }

  get layouts(): BtfLayouts {
    return this.#declared().layouts;
  }

  get cpus(): readonly number[] {
    // stop_this_cpu() (arch/x86/kernel/process.c) clears a CPU's bit in the online mask; only hotplug clears
    // the one in the active mask.
    this.#cpus ??= [
      ...new Set([
        ...this.#cpusOf(this.symbol('__cpu_online_mask')),
        ...this.#cpusOf(this.symbolMaybe('__cpu_active_mask')),
      ]),
    ].sort((a, b) => a - b);
    return this.#cpus;
  }

  get possibleCpus(): readonly number[] {
    const mask = this.symbolMaybe('__cpu_possible_mask');
    this.#possibleCpus ??= mask === undefined ? this.cpus : this.#cpusOf(mask);
    return this.#possibleCpus;
  }

  get presentCpus(): readonly number[] {
    return this.#cpusOf(this.symbol('__cpu_present_mask'));
  }

  bind<F extends Fields>(decl: StructDecl<F>): Bound<F> {
    const known = this.#bound.get(decl);
    // The map is filled below only, with the declaration's own binding.
    if (known !== undefined) return known as Bound<F>;
    const bound = this.#declared().bind(decl, this.memory);
    this.#bound.set(decl, bound);
    return bound;
  }

  hasMember(structName: string, path: string): boolean {
    return this.layouts.member(structName, path) !== undefined;
  }

  sizeOf(structName: string): number {
    const size = this.layouts.sizeOf(structName);
    if (size === undefined) throw new BindError(structName, undefined, this.release, 'does not exist');
    return size;
  }

  enumerator(name: string): number {
    const value = this.layouts.enumerator(name);
    if (value === undefined) throw new SymbolError(name, this.release, 'enumerator');
    return value;
  }

  symbol(name: string): bigint {
    const address = this.#parts.symbols.lookup(name);
    if (address === undefined) throw new SymbolError(name, this.release);
    return address;
  }

  symbolMaybe(name: string): bigint | undefined {
    return this.#parts.symbols.lookup(name);
  }

  symbolAt(address: bigint): { readonly name: string; readonly offset: number } | undefined {
    return this.#isInImage(address) ? this.#parts.symbols.symbolAt(address) : undefined;
  }

  /** The table of symbols does not say where the last one ends, nor what is no symbol's. */
  #isInImage(address: bigint): boolean {
    const start = this.symbolMaybe('_text') ?? this.symbolMaybe('_stext');
    const end = this.symbolMaybe('_end');
    if (start !== undefined && end !== undefined && address >= start && address < end) return true;
    return address < (this.symbolMaybe('__per_cpu_end') ?? 0n);
  }

  perCpu(symbolOrAddress: string | bigint, cpu: number): bigint {
    const offset = typeof symbolOrAddress === 'string' ? this.symbol(symbolOrAddress) : symbolOrAddress;
    if (!Number.isInteger(cpu) || cpu < 0 || cpu >= MAX_CPUS) throw new RangeError(`there is no CPU ${cpu}`);
    const base = this.memory.u64(this.symbol('__per_cpu_offset') + BigInt(cpu * 8));
    return BigInt.asUintN(64, base + offset);
  }

  pfnToPage(pfn: number): bigint {
    return this.#parts.bases.vmemmap + BigInt(pfn) * BigInt(this.#sizeOfPage());
  }

  pageToPfn(page: bigint): number {
    const distance = page - this.#parts.bases.vmemmap;
    const bytes = BigInt(this.#sizeOfPage());
    if (distance < 0n || distance % bytes !== 0n || distance / bytes > 1n << 40n) {
      throw new AddressError(page, 'is not a struct page');
    }
    return Number(distance / bytes);
  }

  pageToVirtual(page: bigint): bigint {
    return this.#parts.bases.directMap + BigInt(this.pageToPfn(page) * PAGE_SIZE);
  }

  physicalToVirtual(physical: number): bigint {
    return this.#parts.bases.directMap + BigInt(physical);
  }

  close(): void {
    this.stored?.close();
    this.stored = undefined;
    this.physical.close();
    this.#parts.file.close();
  }

  #declared(): Structures<BtfLayouts> {
    this.#structures ??= new Structures(
      new BtfLayouts(new Btf(this.#parts.btf ?? this.#readBtf())),
      this.release,
    );
    return this.#structures;
  }

  #sizeOfPage(): number {
    this.#pageBytes ??= this.sizeOf('page');
    return this.#pageBytes;
  }

  #readBtf(): Uint8Array {
    const start = this.symbol('__start_BTF');
    const bytes = this.symbol('__stop_BTF') - start;
    if (bytes <= 0n || bytes > MAX_BTF_BYTES)
      throw new VmcoreError(`the dump is damaged: ${bytes} bytes of BTF`);
    return this.memory.read(start, Number(bytes));
  }

  #cpusOf(address: bigint | undefined): number[] {
    if (address === undefined) return [];
    const possible = this.memory.u32(this.symbol('nr_cpu_ids'));
    if (possible === 0 || possible > MAX_CPUS)
      throw new VmcoreError(`the dump is damaged: nr_cpu_ids is ${possible}`);
    const mask = this.memory.read(address, Math.ceil(possible / 8));
    const cpus: number[] = [];
    for (let cpu = 0; cpu < possible; cpu++) {
      if (((mask[cpu >> 3] ?? 0) & (1 << (cpu & 7))) !== 0) cpus.push(cpu);
    }
    return cpus;
  }
}
