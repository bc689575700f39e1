import { ContainerError, isDamage } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, cstring, optional, pointer, struct, u32 } from '../vmcore/view.ts';
import { listReadEntries } from './list.ts';

/** `struct module` (include/linux/module.h). */
export const moduleStruct = struct('module', {
  name: cstring,
  kallsyms: pointer,
  arch: optional(addressOf('arch')),
});
export const modKallsyms = struct('mod_kallsyms', { symtab: pointer, num_symtab: u32, strtab: pointer });
/** Up to 6.3 a module had two areas, of which the second is gone once it is initialised. */
export const moduleLayout = struct('module_layout', { base: pointer, size: u32 });
/** 6.4 gave text, data, read-only data and so on an area each. */
export const moduleMemory = struct('module_memory', { base: pointer, size: u32 });

/** More modules, symbols of one, and bytes of a name than there are. */
const MAX_MODULES = 8192;
const MAX_SYMBOLS = 1 << 20;
const KSYM_NAME_LEN = 512;

/** Offsets in an Elf64_Sym. */
const SYM = { name: 0, section: 6, value: 8, bytes: 24 } as const;

/** A module that was loaded. */
export interface Module {
  /** Address of its `struct mod_arch_specific`; undefined in a kernel that does not show it. */
  readonly arch: bigint | undefined;
  readonly name: string;
  /** Where it is in kernel memory. */
  readonly areas: readonly { readonly start: bigint; readonly end: bigint }[];
  /** Address of its `struct mod_kallsyms`. */
  readonly kallsyms: bigint;
}

/** A symbol of a module. */
export interface ModuleSymbol {
  readonly module: string;
  readonly name: string;
  readonly address: bigint;
}

function areasOf(kernel: Kernel, module: bigint): Module['areas'] {
  const areas: { start: bigint; end: bigint }[] = [];
  const add = ({ base, size }: { base: bigint; size: number }): void => {
    if (base !== 0n && size !== 0) areas.push({ start: base, end: base + BigInt(size) });
  };
  const { layouts } = kernel;
  const memory = layouts.member('module', 'mem');
  if (memory === undefined) {
    const offset = layouts.member('module', 'core_layout')?.offsetBytes ?? 0;
    add(kernel.bind(moduleLayout).at(module + BigInt(offset)));
    return areas;
  }
  const bound = kernel.bind(moduleMemory);
  for (let i = 0; i < (memory.element?.count ?? 0); i++) {
    add(bound.at(module + BigInt(memory.offsetBytes + i * bound.size)));
  }
  return areas;
}

/** The modules that were loaded, and what is wrong with their list; undefined if nothing is. */
export function readModules(kernel: Kernel): { modules: readonly Module[]; damage: string | undefined } {
  const head = kernel.symbolMaybe('modules');
  if (head === undefined) return { modules: [], damage: undefined };
  const bound = kernel.bind(moduleStruct);
  const { entries, damage } = listReadEntries(kernel, head, bound, 'list', MAX_MODULES);
  const modules: Module[] = [];
  let problem = damage;
  for (const entry of entries) {
    try {
      const { address, arch, name, kallsyms } = entry;
      modules.push({ arch, name, areas: areasOf(kernel, address), kallsyms });
    } catch (error) {
      if (!isDamage(error)) throw error;
      problem ??= error.message;
    }
  }
  return { modules, damage: problem };
}

/** Symbols of a module, as they are in its table. Throws a VmcoreError where that is damaged. */
export function* moduleSymbols(kernel: Kernel, module: Module): Generator<ModuleSymbol> {
  const { symtab, num_symtab: count, strtab } = kernel.bind(modKallsyms).at(module.kallsyms);
  if (count > MAX_SYMBOLS) throw new ContainerError('mod_kallsyms', module.kallsyms, `has ${count} symbols`);
  const table = kernel.memory.read(symtab, count * SYM.bytes);
  for (let at = 0; at < table.length; at += SYM.bytes) {
    // Not defined in the module.
    if (table.readUInt16LE(at + SYM.section) === 0) continue;
    const name = kernel.memory.cstring(strtab + BigInt(table.readUInt32LE(at + SYM.name)), KSYM_NAME_LEN);
    if (name !== '') yield { module: module.name, name, address: table.readBigUInt64LE(at + SYM.value) };
  }
}

/** The module that an address is in. */
export function moduleOf(modules: readonly Module[], address: bigint): Module | undefined {
  return modules.find(({ areas }) => areas.some(({ start, end }) => address >= start && address < end));
}

/**
 * The module that an address is in, and its last symbol at or below the address in the same area, if there is
 * one. Undefined if it is in none. Throws a VmcoreError where the module's table of symbols is damaged.
 */
export function moduleAt(
  kernel: Kernel,
  modules: readonly Module[],
  address: bigint,
): { readonly module: string; readonly symbol: ModuleSymbol | undefined } | undefined {
  for (const module of modules) {
    const area = module.areas.find(({ start, end }) => address >= start && address < end);
    if (area === undefined) continue;
    let best: ModuleSymbol | undefined;
    for (const symbol of moduleSymbols(kernel, module)) {
      if (symbol.address < area.start || symbol.address > address) continue;
      if (best === undefined || symbol.address > best.address) best = symbol;
    }
    return { module: module.name, symbol: best };
  }
  return undefined;
}
