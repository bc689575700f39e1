import { PAGE_SIZE } from '../system/page.ts';
import type { VmcoreFile } from './mapping.ts';

/** Something else than a dump that is read here, and what to do with it. */
interface Foreign {
  /** Where its mark is, and the mark, latin1. */
  readonly at: number;
  readonly magic: string;
  readonly advice: string;
}

const UNPACK = 'unpack it first, for memory is read in place';
const AS_DUMP =
  'have the hypervisor write a dump instead (QEMU: dump-guest-memory, libvirt: virsh dump --memory-only)';

/**
 * Marks of files that people take for dumps: file(1)'s magic, QEMU's migration/savevm.h, LiME's and AVML's
 * headers, and so on.
 */
const FOREIGN: readonly Foreign[] = [
  { at: 0, magic: '\x1f\x8b', advice: `is compressed with gzip: ${UNPACK} (gunzip -k FILE.gz)` },
  { at: 0, magic: '\xfd7zXZ\0', advice: `is compressed with xz: ${UNPACK} (unxz -k FILE.xz)` },
  { at: 0, magic: '\x28\xb5\x2f\xfd', advice: `is compressed with zstd: ${UNPACK} (unzstd FILE.zst)` },
  { at: 0, magic: 'BZh', advice: `is compressed with bzip2: ${UNPACK} (bunzip2 -k FILE.bz2)` },
  { at: 0, magic: '\x04\x22\x4d\x18', advice: `is compressed with lz4: ${UNPACK} (unlz4 FILE.lz4)` },
  { at: 0, magic: 'PK\x03\x04', advice: `is a zip archive: ${UNPACK} (unzip FILE)` },
  { at: 257, magic: 'ustar', advice: `is a tar archive: ${UNPACK} (tar xf FILE)` },
  { at: 0, magic: 'QEVM', advice: `is a migration stream or saved state of QEMU: ${AS_DUMP}` },
  {
    at: 0,
    magic: 'LibvirtQemudSave',
    advice: `is a saved state of libvirt (virsh save): restore it, and ${AS_DUMP}`,
  },
  { at: 0, magic: 'LibvirtQemudPart', advice: `is half a saved state of libvirt: ${AS_DUMP}` },
  { at: 0, magic: 'QFI\xfb', advice: `is a disk image (qcow2): ${AS_DUMP}` },
  {
    at: 0,
    magic: 'EMiL',
    advice:
      "is LiME's or AVML's format: have it written as an ELF dump, or convert it (LiME: format=padded, then objcopy)",
  },
  {
    at: 0,
    magic: 'DISKDUMP',
    advice: 'is of diskdump, a predecessor of kdump: kernels that old are not read',
  },
  { at: 0, magic: 'PAGEDU64', advice: 'is a crash dump of Windows' },
  { at: 0, magic: 'MDMP', advice: 'is a minidump of Windows' },
  {
    at: 0,
    magic: '\xd2\xbe\xd2\xbe',
    advice: 'is a suspended machine of VMware: convert it to an ELF core with vmss2core -M',
  },
  {
    at: 0,
    magic: '\xd0\xbe\xd2\xbe',
    advice: 'is a suspended machine of VMware: convert it to an ELF core with vmss2core -M',
  },
  {
    at: 0,
    magic: '\xd1\xba\xd1\xba',
    advice: 'is a snapshot of VMware: convert it to an ELF core with vmss2core -M',
  },
  {
    at: PAGE_SIZE - 10,
    magic: 'S1SUSPEND',
    advice: 'is a hibernation image: boot the machine from it and dump that',
  },
  {
    at: PAGE_SIZE - 10,
    magic: 'S2SUSPEND',
    advice: 'is a hibernation image: boot the machine from it and dump that',
  },
  {
    at: PAGE_SIZE - 10,
    magic: 'ULSUSPEND',
    advice: 'is a hibernation image: boot the machine from it and dump that',
  },
  { at: PAGE_SIZE - 10, magic: 'SWAPSPACE2', advice: 'is a swap area' },
  { at: 0, magic: 'OTHRWRLD', advice: 'is a profile, not a dump: name it with --profile' },
];

const FIRST_LINE = 'OSRELEASE=';
/** How much of a file without any mark is looked through for a kernel, and how much of it at a time. */
const LOOK_BYTES = 2 ** 30;
const CHUNK = 1 << 20;

/** Whether a file has VMCOREINFO at the start of a page, as memory that was copied byte for byte has. */
function isRawMemory(file: VmcoreFile): boolean {
  if (file.sizeBytes < CHUNK || file.sizeBytes % PAGE_SIZE !== 0) return false;
  for (let at = 0; at < Math.min(file.sizeBytes, LOOK_BYTES); at += CHUNK) {
    const chunk = file.readExact(at, Math.min(CHUNK, file.sizeBytes - at), 'memory');
    for (let page = 0; page < chunk.length; page += PAGE_SIZE) {
      if (chunk.toString('latin1', page, page + FIRST_LINE.length) !== FIRST_LINE) continue;
      if (chunk.includes('SYMBOL(init_uts_ns)=', page, 'latin1')) return true;
    }
  }
  return false;
}

/**
 * What a file is that is no dump of a kind that is read here, and what to do about it: the rest of a sentence
 * about it.
 */
export function describeForeign(file: VmcoreFile): string {
  const first = file.readExact(0, Math.min(PAGE_SIZE, file.sizeBytes), 'the first bytes');
  const found = FOREIGN.find(({ at, magic }) => first.toString('latin1', at, at + magic.length) === magic);
  if (found !== undefined) return found.advice;
  if (isRawMemory(file))
    return `is raw memory, which does not tell where in the machine its parts were: ${AS_DUMP}`;
  return 'is no vmcore: neither an ELF core (/proc/vmcore, a dump by QEMU or libvirt) nor a kdump-compressed dump of makedumpfile';
}
