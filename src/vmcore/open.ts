import { fullAddressSpace, imageMatches, initialAddressSpace, readBases } from './address-space.ts';
import { DeadKernel } from './dead-kernel.ts';
import { type DumpSource, openElf } from './elf.ts';
import { FormatError, ProfileError, VmcoreError } from './errors.ts';
import { Kallsyms, readKallsymsTables } from './kallsyms.ts';
import type { Kernel } from './kernel.ts';
import { openFile, type VmcoreFile } from './mapping.ts';
import { KernelMemory } from './memory.ts';
import type { Profile } from './profile.ts';
import { parseVmcoreinfo, searchVmcoreinfo, vmcoreinfoSymbol } from './vmcoreinfo.ts';

const ELF_MAGIC = Buffer.from('\x7fELF', 'latin1');

function openSource(file: VmcoreFile): DumpSource {
  if (file.sizeBytes === 0) throw new FormatError(file.path, 'is empty');
  const magic = file.readExact(0, Math.min(16, file.sizeBytes), 'the first bytes');
  if (magic.subarray(0, 4).equals(ELF_MAGIC)) return openElf(file);
  throw new FormatError(file.path, 'is no vmcore: neither an ELF core nor a kdump-compressed dump');
}

/** VMCOREINFO and a memory through which the kernel image can be read; checked against each other. */
function locateKernel(
  file: VmcoreFile,
  source: DumpSource,
): { info: ReadonlyMap<string, string>; memory: KernelMemory } {
  const tryInfo = (info: ReadonlyMap<string, string>): KernelMemory | undefined => {
    const memory = new KernelMemory(source.physical, initialAddressSpace(info));
    return imageMatches(memory, info) ? memory : undefined;
  };
  if (source.vmcoreinfo !== undefined) {
    const info = parseVmcoreinfo(source.vmcoreinfo);
    const memory = tryInfo(info);
    if (memory !== undefined) return { info, memory };
    throw new FormatError(
      file.path,
      'the kernel is not where VMCOREINFO says: the dump is damaged or incomplete',
    );
  }
  for (const info of searchVmcoreinfo(source.physical)) {
    const memory = tryInfo(info);
    if (memory !== undefined) return { info, memory };
  }
  throw new FormatError(
    file.path,
    'has no VMCOREINFO, neither as a note nor in memory: is it a dump of Linux?',
  );
}

function openDump(file: VmcoreFile, profile: Profile | undefined): Kernel {
  const source = openSource(file);
  const { info, memory } = locateKernel(file, source);
  const release = info.get('OSRELEASE') ?? '';
  if (profile !== undefined && info.get('BUILD-ID') !== profile.buildId) {
    throw new ProfileError(
      `the profile is of kernel ${profile.release} (build id ${profile.buildId}), ` +
        `${file.path} of ${release} (${info.get('BUILD-ID') ?? 'none'})`,
    );
  }
  const stext = vmcoreinfoSymbol(info, '_stext');
  if (stext === undefined) throw new VmcoreError('VMCOREINFO has no _stext');
  const kallsyms = new Kallsyms(readKallsymsTables(memory, info), { name: '_stext', address: stext });
  const bases = readBases(memory, (name) => kallsyms.lookup(name));
  const space = fullAddressSpace(memory.addressSpace, source.physical, bases, kallsyms.lookup('_end'));
  memory.setAddressSpace(space);
  return new DeadKernel({ file, release, info, source, memory, kallsyms, bases });
}

/**
 * Opens a dump: `/proc/vmcore`, an ELF vmcore, or QEMU's `dump-guest-memory`. Memory is mapped, not read. With a profile,
 * symbols and layouts come from it instead of from the dump. Throws a FormatError for a file that is no
 * vmcore or is too damaged to find the kernel in, a ProfileError if the profile is of another kernel.
 */
export function openKernel(path: string, profile?: Profile): Kernel {
  const file = openFile(path);
  try {
    return openDump(file, profile);
  } catch (error) {
    file.close();
    throw error;
  }
}
