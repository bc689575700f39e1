import { fullAddressSpace, imageMatches, initialAddressSpace, readBases } from './address-space.ts';
import { flattenedContent, isFlattened, plainContent, requireBytes } from './content.ts';
import { DeadKernel, type OpenedFile } from './dead-kernel.ts';
import { type DumpSource, openElf } from './elf.ts';
import { FormatError, ProfileError, VmcoreError } from './errors.ts';
import { describeForeign } from './foreign.ts';
import { Kallsyms, readKallsymsTables } from './kallsyms.ts';
import { PROC_KCORE } from './kcore.ts';
import { openKcore } from './kcore-source.ts';
import { isKdump, openKdump } from './kdump.ts';
import type { Kernel } from './kernel.ts';
import { openFile, type VmcoreFile } from './mapping.ts';
import { KernelMemory } from './memory.ts';
import type { Profile } from './profile.ts';
import type { SymbolTable } from './symbols.ts';
import { parseVmcoreinfo, searchVmcoreinfo, vmcoreinfoSymbol } from './vmcoreinfo.ts';

const ELF_MAGIC = Buffer.from('\x7fELF', 'latin1');

/** Opens the file as what its first bytes say it is. */
export function openSource(file: VmcoreFile): DumpSource {
  if (file.sizeBytes === 0) throw new FormatError(file.path, 'is empty');
  const magic = file.readExact(0, Math.min(16, file.sizeBytes), 'the first bytes');
  if (magic.subarray(0, 4).equals(ELF_MAGIC)) return openElf(file);
  if (isKdump(magic)) return openKdump(plainContent(file));
  if (isFlattened(magic)) {
    const content = flattenedContent(file);
    if (isKdump(requireBytes(content, 0, 16, 'the header'))) return openKdump(content);
    throw new FormatError(
      file.path,
      'is a flattened ELF dump: write it out with `makedumpfile -R DUMP < FILE` first',
    );
  }
  throw new FormatError(file.path, describeForeign(file));
}

interface Located {
  readonly info: ReadonlyMap<string, string>;
  readonly memory: KernelMemory;
}

/** VMCOREINFO and a memory through which the kernel image can be read; checked against each other. */
function locateKernel(file: OpenedFile, source: DumpSource, profile: Profile | undefined): Located {
  const attempt = (info: ReadonlyMap<string, string>): Located | undefined => {
    const memory = new KernelMemory(source.physical, initialAddressSpace(source.architecture, info));
    return imageMatches(memory, info) ? { info, memory } : undefined;
  };
  if (source.vmcoreinfo !== undefined) {
    const located = attempt(parseVmcoreinfo(source.vmcoreinfo));
    if (located !== undefined) return located;
    throw new FormatError(
      file.path,
      ['the kernel is not where VMCOREINFO says: the dump is damaged or incomplete', ...source.warnings].join(
        '; ',
      ),
    );
  }
  if (profile !== undefined && profile.vmcoreinfo !== '') {
    const located = attempt(parseVmcoreinfo(profile.vmcoreinfo));
    if (located !== undefined) return located;
    throw new ProfileError(
      `${file.path} is not of the boot that the profile was taken in (kernel ${profile.release})`,
    );
  }
  for (const info of searchVmcoreinfo(source.physical)) {
    const located = attempt(info);
    if (located !== undefined) return located;
  }
  throw new FormatError(
    file.path,
    'has no VMCOREINFO, neither as a note nor in memory: is it a dump of Linux?',
  );
}

/** A profile is of one kernel image and of one boot of it. */
function checkProfile(file: OpenedFile, info: ReadonlyMap<string, string>, profile: Profile): void {
  const buildId = info.get('BUILD-ID');
  if (buildId !== profile.buildId) {
    throw new ProfileError(
      `the profile is of kernel ${profile.release} with build id ${profile.buildId}, ` +
        `${file.path} of ${info.get('OSRELEASE')} with ${buildId ?? 'none'}`,
    );
  }
  if (profile.symbols.lookup('_stext') !== vmcoreinfoSymbol(info, '_stext')) {
    throw new ProfileError(
      `the profile is of another boot than ${file.path}: the kernel was at another address`,
    );
  }
}

/** Symbols that both VMCOREINFO and kallsyms have in every kernel. */
const KNOWN_SYMBOLS = ['_stext', 'init_uts_ns'];

function kallsymsOf(memory: KernelMemory, info: ReadonlyMap<string, string>): SymbolTable {
  const known = new Map<string, bigint>();
  for (const name of KNOWN_SYMBOLS) {
    const address = vmcoreinfoSymbol(info, name);
    if (address === undefined) throw new VmcoreError(`VMCOREINFO has no ${name}`);
    known.set(name, address);
  }
  return new Kallsyms(readKallsymsTables(memory, info), known);
}

/** Finds the kernel in a dump. Throws like {@link openKernel}. */
export function kernelFrom(file: OpenedFile, source: DumpSource, profile?: Profile): DeadKernel {
  const { info, memory } = locateKernel(file, source, profile);
  if (profile !== undefined) checkProfile(file, info, profile);
  const symbols = profile?.symbols ?? kallsymsOf(memory, info);
  const bases = readBases(source.architecture, memory, (name) => symbols.lookup(name));
  memory.setAddressSpace(
    fullAddressSpace(memory.addressSpace, source.physical, bases, symbols.lookup('_end')),
  );
  const release = info.get('OSRELEASE') ?? '';
  return new DeadKernel({ file, release, info, source, memory, symbols, btf: profile?.btf, bases });
}

/**
 * Opens a dump: `/proc/vmcore`, an ELF vmcore, or QEMU's `dump-guest-memory`. Memory is mapped, not read. Or
 * `/proc/kcore`, the running kernel, as it is at one time or another while it is read.
 * With a profile, symbols and layouts come from it instead of from the dump. Throws a FormatError for a file
 * that is no vmcore or is too damaged to find the kernel in, a ProfileError if the profile is of another
 * kernel.
 */
export function openKernel(path: string, profile?: Profile): Kernel {
  if (path === PROC_KCORE) return openLiving(path, profile);
  const file = openFile(path);
  try {
    return kernelFrom(file, openSource(file), profile);
  } catch (error) {
    file.close();
    throw error;
  }
}

/** The running kernel, to be looked at as often as is wanted. */
export interface LivingKernel {
  /** The kernel as it is from now on: nothing that was read before is remembered. */
  look(): Kernel;
  close(): void;
}

function openLiving(path: string, profile?: Profile): DeadKernel {
  const source = openKcore(path);
  const file = { path, close: () => undefined };
  try {
    return kernelFrom(file, source, profile);
  } catch (error) {
    source.physical.close();
    throw error;
  }
}

/**
 * Opens the running kernel. Throws like {@link openKernel}: a FormatError says why the kernel does not show
 * its memory, if it does not.
 */
export function livingKernel(path: string = PROC_KCORE): LivingKernel {
  const kernel = openLiving(path);
  return {
    look: () => {
      kernel.physical.forget?.();
      return kernel.anew();
    },
    close: () => kernel.close(),
  };
}
