import type { StageZeroCpu } from './area.ts';

/** Where the entries of the table of interrupt controllers begin (ACPI specification, MADT). */
const MADT_ENTRIES = 44;
const LOCAL_APIC = 0;
const LOCAL_X2APIC = 9;
const ENABLED = 1;
/** In the place of an id: no processor's (ACPI specification); for an APIC, everybody's. */
const NO_APIC = 0xff;
const NO_X2APIC = 0xffff_ffff;

/**
 * The APIC ids of all processors that the firmware has enabled, in its order, from its MADT
 * (/sys/firmware/acpi/tables/APIC).
 */
export function madtApicIds(madt: Buffer): number[] {
  const ids: number[] = [];
  for (let at = MADT_ENTRIES; at + 2 <= madt.length; ) {
    const [type = 0, length = 0] = madt.subarray(at, at + 2);
    if (length < 2 || at + length > madt.length) break;
    if (type === LOCAL_APIC && length >= 8 && (madt.readUInt32LE(at + 4) & ENABLED) !== 0)
      ids.push(madt[at + 3] ?? NO_APIC);
    if (type === LOCAL_X2APIC && length >= 16 && (madt.readUInt32LE(at + 8) & ENABLED) !== 0)
      ids.push(madt.readUInt32LE(at + 4));
    at += length;
  }
  return ids.filter((id) => id !== NO_APIC && id !== NO_X2APIC);
}

/** What /proc/cpuinfo tells of the processors. */
export interface CpuInfo {
  /** APIC ids of those that are online, as the processors themselves say; the boot processor's first. */
  readonly apicIds: readonly number[];
  readonly flags: ReadonlySet<string>;
  /**
   * Of the first one. In a virtual machine it is the rate of the time stamp counter; elsewhere it is what the
   * processor runs at for the moment, which may be much less (arch_freq_get_on_cpu).
   */
  readonly megahertz: number | undefined;
}

/** Reads the text of /proc/cpuinfo. */
export function parseCpuInfo(text: string): CpuInfo {
  const flags = /^flags\s*:\s*(.*)$/m.exec(text)?.[1] ?? '';
  const megahertz = Number(/^cpu MHz\s*:\s*([0-9.]+)$/m.exec(text)?.[1]);
  return {
    apicIds: Array.from(text.matchAll(/^initial apicid\s*:\s*(\d+)$/gm), ([, id]) => Number(id)),
    flags: new Set(flags.split(' ')),
    megahertz: megahertz > 0 ? megahertz : undefined,
  };
}

/**
 * The processors whose registers are to be saved: those that are online, and those that may be one day. Only
 * the boot processor must not be started: INIT would reset the machine. It is the first in /proc/cpuinfo, but
 * not in a crash kernel and what comes after it, which begin on whichever processor panicked; the firmware
 * names it first (check_for_real_bsp in arch/x86/kernel/cpu/topology.c). Where the two differ, both are
 * spared.
 */
export function stageZeroCpus({ apicIds }: CpuInfo, madt: Buffer | undefined): StageZeroCpu[] {
  const enumerated = madt === undefined ? [] : madtApicIds(madt);
  const all = new Set([...apicIds, ...enumerated]);
  return [...all].map((apicId) => ({
    apicId,
    isBoot: apicId === apicIds[0] || apicId === enumerated[0],
  }));
}

/** Bytes of XSAVE's area with everything up to protection keys, and with AMX (SDM 1, 13.5 and 18.3). */
const PLAIN_XSAVE_BYTES = 2816;
const AMX_XSAVE_BYTES = 11_072;

/** Bytes that XSAVE takes at most on a processor with these flags. */
export function xsaveBytes({ flags }: CpuInfo): number {
  return flags.has('amx_tile') ? AMX_XSAVE_BYTES : PLAIN_XSAVE_BYTES;
}

/**
 * Seconds that the other processors have to answer in. They do at once; but those of a virtual machine run
 * when its host lets them.
 */
const ANSWER_SECONDS = { real: 0.02, virtual: 1 };
/** Where /proc/cpuinfo does not tell the rate: fast, so that the limit becomes longer and not shorter. */
const FAST_MEGAHERTZ = 5000;

/** Ticks of the time stamp counter for that. */
export function answerTicks({ flags, megahertz = FAST_MEGAHERTZ }: CpuInfo): number {
  return flags.has('hypervisor')
    ? Math.round(ANSWER_SECONDS.virtual * megahertz * 1e6)
    : Math.round(ANSWER_SECONDS.real * Math.max(megahertz, FAST_MEGAHERTZ) * 1e6);
}

/**
 * Why stage zero cannot work with these processors: the end of a sentence; undefined if it can. SEV guests
 * are not known by their flags, which the kernel clears there.
 */
export function processorObstacle({ apicIds, flags }: CpuInfo): string | undefined {
  if (!flags.has('lm') || !flags.has('xsave')) return 'the processor has no XSAVE';
  if (flags.has('tdx_guest'))
    return 'in a confidential virtual machine no processor can be started by another';
  if (apicIds.length === 0) return '/proc/cpuinfo does not tell the APIC ids of the processors';
  return undefined;
}
