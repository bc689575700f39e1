import { fileStruct } from '../../linux/fs.ts';
import {
  adviceOf,
  coredumpFilterOf,
  dumpableOf,
  hasMmFlag,
  savedAuxv,
  specialMappingName,
  VM,
} from '../../linux/mm.ts';
import { type Mm, mmStruct } from '../../linux/mm-types.ts';
import { type FileKind, fileKind } from '../../linux/readers/file-kind.ts';
import { PageDescriptors } from '../../linux/readers/page-owner.ts';
import { untriedSwap } from '../../linux/readers/swap-areas.ts';
import type { AddressSpace, Vma, VmaKind } from '../../model/memory.ts';
import { listedRuns, type PageRuns } from '../../model/page-runs.ts';
import { type Findings, ofTheMoment, refuseForNow } from '../../model/verdict.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { aioProblems, ringAreaPages } from '../aio.ts';
import type { FileCapture, MappedFile } from '../file-capture.ts';
import { readAreas, whileItMoves } from './areas.ts';
import { isDispensable } from './dispensable.ts';
import { holeOf } from './lost-area.ts';
import {
  type Area,
  addressSpaceNotes,
  addressSpaceProblems,
  areaProblem,
  futureLockOf,
  lostKeyProblems,
  outsideProblem,
  placeProblem,
  protectionKeyOf,
  protectionKeyProblem,
  protectionKeysOf,
} from './memory-attributes.ts';
import { hexRange } from './memory-flags.ts';
import { type AreaPages, privatePages } from './pages.ts';
import { checkRss, notPresentReason, type PageCounts } from './rss.ts';
import { vdsoRuns, withoutLoneVvar } from './vdso-area.ts';

const NONE = listedRuns([]);

/** What the capture of an address space needs to know of its process. */
export interface MemoryOwner {
  readonly pid: number;
  /** Addresses of all tasks that use the memory. */
  readonly threads: readonly bigint[];
  /** One of them was on a CPU, maybe in the middle of a page fault. */
  readonly isRunning: boolean;
  /** How many of them were in execve(2). */
  readonly inExec: number;
  /** A thread's rights to protection keys were in a CPU (PKRU), and are not known. */
  readonly hasLostKeyRights: boolean;
  readonly memoryId: number;
  /** Id of the memory that it gets a copy of; undefined for memory of its own. */
  readonly copyOf: number | undefined;
  readonly findings: Findings;
  /** It comes back for its crash procedure alone, and can be without an area. */
  readonly forProcedure: boolean;
}

/** Whose area it is. */
interface AreaOwner extends MemoryOwner {
  /** Its process can come back without it. */
  readonly canBeLost: boolean;
}

/** PROT_* of mmap(2), which are the same bits. */
function protectionOf(flags: number): number {
  return flags & (VM.read | VM.write | VM.exec);
}

function openFlags(flags: number): number {
  return (flags & VM.mayShare) !== 0 && (flags & VM.mayWrite) !== 0 ? 2 : 0;
}

/** A file whose mapping can be kept. */
type KeptFile = Exclude<MappedFile, { readonly kind: 'refused' }>;

function kindOf(area: Area, special: string | undefined, file: KeptFile | undefined): VmaKind | undefined {
  if (special === '[vdso]') return 'vdso';
  if (special === '[vvar]') return 'vvar';
  if (special !== undefined) return undefined;
  if (file !== undefined) return file.kind;
  return (area.flags & VM.mayShare) !== 0 ? undefined : 'anonymous';
}

/** Captures address spaces; keeps what is the same for all of a kernel's. */
export class MemoryCapture {
  readonly #kernel: Kernel;
  readonly #files: FileCapture;
  readonly #descriptors: PageDescriptors;
  /** Of the address space that is captured. */
  #counts: PageCounts = { resident: 0, swapped: 0 };

  constructor(kernel: Kernel, files: FileCapture) {
    this.#kernel = kernel;
    this.#files = files;
    this.#descriptors = new PageDescriptors(kernel);
  }

  /**
   * The address space at `address` (`task_struct.mm`). What cannot be kept goes to `owner.findings.reasons`;
   * throws a VmcoreError if its structures cannot be read.
   */
  capture(address: bigint, owner: MemoryOwner): AddressSpace {
    const mm = this.#kernel.bind(mmStruct).at(address);
    owner.findings.reasons.push(...addressSpaceProblems(this.#kernel, mm));
    for (const reason of lostKeyProblems(mm, owner.hasLostKeyRights))
      refuseForNow(owner.findings, reason, 'on-cpu');
    const areas = readAreas(this.#kernel, mm, owner);
    owner.findings.notes.push(...addressSpaceNotes(mm, areas));
    this.#counts = { resident: 0, swapped: 0 };
    const vmas: Vma[] = [];
    for (const [i, area] of areas.entries()) {
      const canBeLost = owner.forProcedure && isDispensable(mm, area, areas.slice(0, i));
      const vma = this.#area(mm, area, { ...owner, canBeLost });
      if (vma !== undefined) vmas.push(vma);
    }
    // Areas that are refused are missing from the sum, and have their reasons.
    if (vmas.length === areas.length) {
      // Pages of a process that sleeps are swapped out too while it is looked at.
      const moment = this.#kernel.isAlive ? 'passing' : undefined;
      ofTheMoment(owner.findings, moment, () => checkRss(this.#kernel, mm, this.#counts, owner));
      owner.findings.reasons.push(...aioProblems(this.#kernel, mm, vmas));
    }
    if (this.#kernel.isAlive) this.#foreseeSwap(owner);
    return {
      id: owner.memoryId,
      copyOf: owner.copyOf,
      startCode: mm.start_code,
      endCode: mm.end_code,
      startData: mm.start_data,
      endData: mm.end_data,
      startStack: mm.start_stack,
      startBrk: mm.start_brk,
      brk: mm.brk,
      argStart: mm.arg_start,
      argEnd: mm.arg_end,
      envStart: mm.env_start,
      envEnd: mm.env_end,
      savedAuxv: savedAuxv(this.#kernel, mm),
      dumpable: dumpableOf(mm),
      thpDisabled: hasMmFlag(mm, 'disableThp'),
      refusesExecGain: hasMmFlag(mm, 'hasMdwe'),
      futureLock: futureLockOf(mm),
      coredumpFilter: coredumpFilterOf(mm),
      protectionKeys: protectionKeysOf(mm),
      exeFileId: this.#files.exeFile(mm.exe_file, owner.pid),
      vmas: withoutLoneVvar(vmas, owner.findings),
    };
  }

  /** What a living kernel has in swap is not tried: those that will be refused have their reasons. */
  #foreseeSwap({ findings }: MemoryOwner): void {
    const { swapped } = this.#counts;
    if (swapped > 0 && untriedSwap(this.#kernel.release) === undefined)
      findings.notes.push(`has ${swapped} pages in swap, which is read after a panic`);
  }

  #area(mm: Mm, area: Area, owner: AreaOwner): Vma | undefined {
    const { view, flags } = area;
    const refuse = (why: string): undefined => {
      owner.findings.reasons.push(`the memory area ${hexRange(area)} ${why}`);
      return undefined;
    };
    const special = specialMappingName(this.#kernel, view);
    if (special === undefined) {
      const ofPlace = placeProblem(area);
      if (ofPlace !== undefined) return refuse(ofPlace);
      const outside = outsideProblem(area, this.#fileKind(area));
      if (outside !== undefined)
        return owner.canBeLost ? this.#leaveOut(mm, area, owner, outside) : refuse(outside);
      const problem = areaProblem(area) ?? protectionKeyProblem(mm, area);
      if (problem !== undefined) return refuse(problem);
    }
    const file = this.#file(area, owner.pid);
    if (file?.kind === 'refused') {
      const isOfMoment = this.#kernel.isAlive && file.moment !== undefined;
      if (owner.canBeLost && file.isDamage !== true && !isOfMoment)
        return this.#leaveOut(mm, area, owner, `maps a file that cannot be kept: ${file.reason}`);
      // One reason for all areas of a file: a library has five of them.
      const reason = `maps a file that cannot be kept: ${file.reason}`;
      const { findings } = owner;
      if (!findings.reasons.includes(reason))
        ofTheMoment(findings, file.moment, () => findings.reasons.push(reason));
      return undefined;
    }
    const kind = kindOf(area, special, file);
    if (kind === undefined)
      return refuse(special === undefined ? 'is shared but has no file' : `is ${special}`);
    const runs = this.#pages(mm, area, kind, owner, refuse);
    if (runs === 'lost') return holeOf(area);
    return {
      start: area.start,
      end: area.end,
      prot: protectionOf(flags),
      protectionKey: protectionKeyOf(area),
      growsDown: (flags & VM.growsDown) !== 0,
      heap: kind === 'anonymous' && area.start <= mm.brk && area.end >= mm.start_brk && mm.brk > mm.start_brk,
      stack: area.start <= mm.start_stack && area.end > mm.start_stack,
      hugetlb: false,
      locked: (flags & (VM.locked | VM.lockOnFault)) === VM.locked,
      lockedOnFault: (flags & VM.lockOnFault) !== 0,
      noReserve: (flags & VM.noReserve) !== 0,
      advice: adviceOf(flags),
      offsetBytes: kind === 'anonymous' || special !== undefined ? 0 : view.vm_pgoff * PAGE_SIZE,
      fileOpenFlags: file === undefined ? undefined : openFlags(flags),
      ...file,
      kind,
      runs,
    };
  }

  /**
   * An area that its process comes back without: nothing can be in its place. What of it is the process's own
   * still counts: lost page tables are told by that.
   */
  #leaveOut(mm: Mm, area: Area, owner: AreaOwner, why: string): Vma {
    const name = this.#lose(area, owner, why);
    if ((area.flags & (VM.mayShare | VM.hugetlb)) === 0) {
      const { wrong } = this.#count(mm, area, false);
      if (wrong !== undefined)
        whileItMoves(this.#kernel, owner, () => owner.findings.reasons.push(`${name} is damaged: ${wrong}`));
    }
    return holeOf(area);
  }

  #lose(area: Area, { findings }: AreaOwner, why: string): string {
    const name = `the memory area ${hexRange(area)}`;
    findings.unexpected.push({ kind: 'memory', of: name, what: `${name} is gone: it ${why}` });
    return name;
  }

  #fileKind({ view }: Area): FileKind | undefined {
    if (view.vm_file === 0n) return undefined;
    return readable(() => fileKind(this.#kernel, this.#kernel.bind(fileStruct).at(view.vm_file).f_op));
  }

  #file({ start, end, flags, view }: Area, pid: number): MappedFile | undefined {
    if (view.vm_file === 0n) return undefined;
    return this.#files.mappedFile(view.vm_file, {
      ...{ pid, start, end },
      shared: (flags & VM.mayShare) !== 0,
      openFlags: openFlags(flags),
      offsetBytes: view.vm_pgoff * PAGE_SIZE,
      prot: protectionOf(flags),
      locked: (flags & (VM.locked | VM.lockOnFault)) === VM.locked,
    });
  }

  #pages(
    mm: Mm,
    area: Area,
    kind: VmaKind,
    owner: AreaOwner,
    refuse: (why: string) => undefined,
  ): PageRuns | 'lost' {
    if (kind === 'vdso') return vdsoRuns(this.#kernel, mm, area, refuse);
    if (kind === 'aio-ring') return ringAreaPages(this.#kernel, area.view.vm_file, area.start);
    if (kind !== 'anonymous' && kind !== 'file-private') return NONE;
    const pages = this.#count(mm, area, kind === 'file-private');
    const { wrong, notPresent } = pages;
    if (wrong !== undefined) whileItMoves(this.#kernel, owner, () => refuse(`is damaged: ${wrong}`));
    if (notPresent === undefined) return pages.runs;
    const why = notPresentReason(notPresent);
    if (notPresent.isSwap && wrong === undefined && owner.canBeLost) {
      this.#lose(area, owner, why);
      return 'lost';
    }
    refuse(why);
    return pages.runs;
  }

  /** The pages of an area that are the process's own; they count for the address space. */
  #count(mm: Mm, area: Area, ofFile: boolean): AreaPages {
    const shape = { start: area.start, end: area.end, pgoff: area.view.vm_pgoff, ofFile };
    const pages = privatePages(this.#kernel, mm.pgd, shape, this.#descriptors);
    this.#counts.resident += pages.resident;
    this.#counts.swapped += pages.swapped;
    return pages;
  }
}
