import { vdsoPages } from '../../linux/mm.ts';
import type { Mm } from '../../linux/mm-types.ts';
import type { Vma } from '../../model/memory.ts';
import { listedRuns, type PageRuns } from '../../model/page-runs.ts';
import type { Findings } from '../../model/verdict.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { Area } from './memory-attributes.ts';

/**
 * The areas without the kernel's data for a vDSO that is not there: nothing else reads it, and CRIU restores
 * it with a vDSO only (vdso_proxify, criu/pie/parasite-vdso.c).
 */
export function withoutLoneVvar(vmas: readonly Vma[], findings: Pick<Findings, 'notes'>): readonly Vma[] {
  const hasVdso = vmas.some(({ kind }) => kind === 'vdso');
  if (hasVdso || !vmas.some(({ kind }) => kind === 'vvar')) return vmas;
  findings.notes.push('its area [vvar] is gone: it had unmapped the vDSO that reads it');
  return vmas.filter(({ kind }) => kind !== 'vvar');
}

/**
 * The vDSO's code comes from the kernel's image of it: a process has only those pages mapped that it used.
 */
export function vdsoRuns(kernel: Kernel, mm: Mm, area: Area, refuse: (why: string) => undefined): PageRuns {
  // execve maps the area first, and says then of which image (map_vdso, arch/x86/entry/vdso/vma.c).
  if (mm.vdsoImage === 0n) {
    refuse('was being set up by an execve');
    return listedRuns([]);
  }
  const pages = vdsoPages(kernel, mm);
  if (pages.length * PAGE_SIZE !== area.end - area.start || mm.vdso !== area.start) {
    refuse('does not agree with the kernel about the vDSO');
    return listedRuns([]);
  }
  return listedRuns(
    pages.map((physical, i) => ({ address: area.start + i * PAGE_SIZE, pages: 1, physical })),
  );
}
