import { dumpableOf, hasMmFlag, VM, VM_HIGH } from '../../linux/mm.ts';
import type { Mm, VmArea } from '../../linux/mm-types.ts';
import type { FileKind } from '../../linux/readers/file-kind.ts';
import type { AddressSpace } from '../../model/memory.ts';
import type { Kernel } from '../../vmcore/kernel.ts';

/** One memory area with its flags as two words. */
export interface Area {
  readonly view: VmArea;
  readonly start: number;
  readonly end: number;
  /** Low and high word of vm_flags. */
  readonly flags: number;
  readonly flagsHigh: number;
  /** A userfaultfd watches it. */
  readonly isWatched: boolean;
}

/**
 * End of user space with four levels of page tables, up to where CRIU moves areas to their place
 * (compel_task_size).
 */
const HIGHEST = 2 ** 47;

/** An entry of a page table has four bits for a key (arch_max_pkey, arch/x86/include/asm/pkeys.h). */
const PROTECTION_KEYS = 16;

/** Why nobody can rebuild what others have of an area: a device, a file system, whoever watches it. */
export function outsideProblem(area: Pick<Area, 'flags' | 'isWatched'>, of?: FileKind): string | undefined {
  // The kernel's own pages are in an io_uring, one by one (vm_insert_pages).
  const flags = of === 'io_uring' ? area.flags & ~VM.mixedMap : area.flags;
  if ((flags & VM.hugetlb) !== 0) return 'is of huge pages from hugetlbfs';
  if ((flags & (VM.pfnMap | VM.io | VM.mixedMap)) !== 0) return 'maps a device';
  if (area.isWatched) return 'is watched by a userfaultfd';
  return (flags & VM.sync) !== 0 ? 'maps persistent memory (MAP_SYNC)' : undefined;
}

/** Why nothing can be where an area is. */
export function placeProblem({ end }: Pick<Area, 'end'>): string | undefined {
  return end > HIGHEST ? 'is above 128 TiB (five levels of page tables), which CRIU leaves out' : undefined;
}

/** Why an area cannot be rebuilt by anybody, whatever it maps and whoever has it besides. */
export function areaProblem({ flagsHigh }: Pick<Area, 'flagsHigh'>): string | undefined {
  if ((flagsHigh & VM_HIGH.shadowStack) !== 0) return 'is a shadow stack';
  if (flagsHigh >>> 31 === 1) return 'is sealed (mseal)';
  return undefined;
}

/**
 * Keys of pkey_alloc(2), rising; key 0 and the one that the kernel took for execute-only memory are not the
 * program's.
 */
export function protectionKeysOf({ pkeyMap = 0, executeOnlyPkey = -1 }: Mm): number[] {
  const keys = Array.from({ length: PROTECTION_KEYS }, (_, key) => key);
  return keys.filter((key) => key > 0 && key !== executeOnlyPkey && (pkeyMap & (1 << key)) !== 0);
}

/** The key of an area; 0 is that of memory without one of its own. */
export function protectionKeyOf({ flagsHigh }: Area): number {
  return flagsHigh & VM_HIGH.pkey;
}

/** Why an area cannot have its key again. */
export function protectionKeyProblem(mm: Mm, area: Area): string | undefined {
  const key = protectionKeyOf(area);
  if (key === 0 || protectionKeysOf(mm).includes(key)) return undefined;
  if (key === mm.executeOnlyPkey) return "can be executed only (by a memory protection key of the kernel's)";
  return `has memory protection key ${key}, which is not allocated`;
}

/**
 * Whether the map of keys can be: empty where the processor has none, else with key 0 and the kernel's own
 * (init_new_context).
 */
function hasSoundKeyMap({ pkeyMap = 0, executeOnlyPkey = -1 }: Mm): boolean {
  const has = (key: number): boolean => (pkeyMap & (1 << key)) !== 0;
  return pkeyMap === 0 || (has(0) && (executeOnlyPkey === -1 || has(executeOnlyPkey)));
}

/** How what is mapped from now on is locked: flags that every new area has (`apply_mlockall_flags`). */
export function futureLockOf({ def_flags }: Mm): AddressSpace['futureLock'] {
  if ((def_flags.low & VM.locked) === 0) return undefined;
  return (def_flags.low & VM.lockOnFault) === 0 ? 'at-once' : 'on-fault';
}

/** What an address space as a whole has that nobody can give it again. */
export function addressSpaceProblems(kernel: Kernel, mm: Mm): string[] {
  const problems: (string | false)[] = [
    mm.ldt !== 0n && 'has a local descriptor table (modify_ldt)',
    mm.user_ns !== kernel.symbol('init_user_ns') && 'its memory belongs to a user namespace',
    hasMmFlag(mm, 'hasMdwe') &&
      hasMmFlag(mm, 'mdweNoInherit') &&
      'has given up making memory executable, and its children have not (PR_MDWE_NO_INHERIT)',
    hasMmFlag(mm, 'hasUprobes') && 'has probes of a tracer in its code (uprobes)',
    (mm.lamMask ?? 0n) !== 0n && 'has tags in its addresses (ARCH_ENABLE_TAGGED_ADDR)',
    !hasSoundKeyMap(mm) && 'has a damaged map of memory protection keys',
  ];
  return problems.filter((problem): problem is string => typeof problem === 'string');
}

/**
 * The same of the moment. `hasLostKeyRights`: the rights to protection keys of one of its threads were in a
 * CPU (PKRU), and are not known.
 */
export function lostKeyProblems(mm: Mm, hasLostKeyRights: boolean): string[] {
  return hasLostKeyRights && protectionKeysOf(mm).length > 0
    ? ['has memory protection keys (pkey_alloc) and was on a CPU, which had its rights to them']
    : [];
}

/** How many areas have what; a sentence for each that has any. */
function countNote(areas: readonly Area[], has: (area: Area) => boolean, what: string): string[] {
  const count = areas.filter(has).length;
  return count === 0 ? [] : [`${count} memory areas ${what}`];
}

/** What an address space loses without a change in what its program computes; sentences for the report. */
export function addressSpaceNotes(mm: Mm, areas: readonly Area[]): string[] {
  const mergesAll =
    hasMmFlag(mm, 'mergeAny') || (hasMmFlag(mm, 'mdweNoInherit') && !hasMmFlag(mm, 'hasMdwe'));
  return [
    ...(mergesAll ? ['new memory is no longer offered for merging (PR_SET_MEMORY_MERGE)'] : []),
    ...(dumpableOf(mm) === 2 ? ['it leaves no core dump any more, where root could read one'] : []),
    ...countNote(
      areas,
      ({ view }) => (view.vm_policy ?? 0n) !== 0n,
      'have lost their NUMA memory policy (mbind)',
    ),
    ...countNote(
      areas,
      // Before 6.2 the name of an area without a file shares its place with the file's tree.
      ({ view }) => view.vm_file === 0n && (view.anon_name ?? 0n) !== 0n,
      'have lost their name (PR_SET_VMA_ANON_NAME)',
    ),
  ];
}
