import type { Architecture } from '../arch/index.ts';
import type { ElfNote } from '../system/elf.ts';
import type { BtfLayouts } from './btf-layouts.ts';
import type { CpuNote } from './elf-notes.ts';
import type { Fields, StructDecl } from './field.ts';
import type { KernelMemory } from './memory.ts';
import type { PhysicalMemory } from './physical.ts';
import type { StoredPages } from './stored-pages.ts';
import type { Bound } from './view.ts';

/** A dead, a living or, from QEMU, a frozen kernel: everything above bytes is read through this. */
export interface Kernel {
  /** The dump's path, for messages. */
  readonly path: string;
  /** `uname -r`. */
  readonly release: string;
  readonly architecture: Architecture;
  readonly vmcoreinfo: ReadonlyMap<string, string>;
  /** Registers of each CPU when the dump was made, in the dump's order; may be empty. */
  readonly cpuNotes: readonly CpuNote[];
  /** All ELF notes of the dump, those of the CPUs too. */
  readonly notes: readonly ElfNote[];
  readonly memory: KernelMemory;
  readonly physical: PhysicalMemory;
  /**
   * Pages that the kernel had put elsewhere, for who reads it where they are at hand: set when that has been
   * found out. `contentOf` gives both.
   */
  stored?: StoredPages | undefined;
  readonly layouts: BtfLayouts;
  /** What is wrong with the dump although it can be read. */
  readonly warnings: readonly string[];
  /** Which pages makedumpfile was told to leave out (its option -d); undefined if the dump does not tell. */
  readonly dumpLevel?: number | undefined;
  /** It is the running kernel: its memory changes while it is read, and has no registers of its CPUs. */
  readonly isAlive: boolean;
  /**
   * CPUs that were online when the kernel died, ascending: also those that panic() has stopped since, which
   * it takes off its online mask.
   */
  readonly cpus: readonly number[];
  /** CPUs that have per-CPU memory, ascending, whether they ever were online or not. */
  readonly possibleCpus: readonly number[];
  /** CPUs that were there, online or not, ascending. */
  readonly presentCpus: readonly number[];

  /**
   * Binds a declaration to this kernel (remembered per declaration); throws a BindError if there is no such
   * structure.
   */
  bind<F extends Fields>(decl: StructDecl<F>): Bound<F>;
  /** Whether the structure has the member (a path): the way to tell releases apart. */
  hasMember(structName: string, path: string): boolean;
  /** Size of a struct, union or typedef in bytes; throws a BindError if there is none. */
  sizeOf(structName: string): number;
  /** Value of an enumerator; throws a SymbolError if there is none. */
  enumerator(name: string): number;

  /** Address of a symbol of the kernel proper (modules' symbols are not searched); throws a SymbolError. */
  symbol(name: string): bigint;
  symbolMaybe(name: string): bigint | undefined;
  /**
   * The symbol at or below an address of the kernel image, or below an offset into per-CPU memory; none
   * elsewhere (linux/module.ts has modules').
   */
  symbolAt(address: bigint): { readonly name: string; readonly offset: number } | undefined;

  /**
   * A per-CPU variable's address on one CPU; throws a SymbolError or, for a CPU that never was, an
   * AddressError.
   */
  perCpu(symbolOrAddress: string | bigint, cpu: number): bigint;

  /** Address of a page frame's `struct page` (vmemmap). */
  pfnToPage(pfn: number): bigint;
  /** Frame number of a `struct page`; throws an AddressError if the pointer is not into vmemmap. */
  pageToPfn(page: bigint): number;
  /** Direct-map address of a `struct page`'s frame. */
  pageToVirtual(page: bigint): bigint;
  /** Direct-map address of a physical address. */
  physicalToVirtual(physical: number): bigint;

  /** Unmaps the dump: nothing read from it before (views, windows) may be used afterwards. */
  close(): void;
}
