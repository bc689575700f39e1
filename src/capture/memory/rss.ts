import { rssOf } from '../../linux/mm.ts';
import type { Mm } from '../../linux/mm-types.ts';
import { swapAreaCount } from '../../linux/readers/swap-areas.ts';
import type { Findings } from '../../model/verdict.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { NotPresent } from './pages.ts';

/** Pages that one page fault can bring. */
const HUGE_PAGE = 512;
/** ARG_MAX of a program whose stack may be as small as can be (execve(2)): those with more are refused. */
const EXEC_ARGUMENT_PAGES = 32;

/** What the page tables of an address space have of its own. */
export interface PageCounts {
  resident: number;
  /** Entries of swap areas. */
  swapped: number;
}

/** Whose address space it is, as far as that says how exact the kernel's counts are. */
interface Owner {
  readonly threads: readonly bigint[];
  readonly isRunning: boolean;
  readonly inExec: number;
  readonly findings: Findings;
}

/** A count of the kernel's, and what the page tables have of it. */
interface Compared {
  readonly what: string;
  /** For sentences: `pages`, `resident pages`. */
  readonly pages: string;
  readonly name: string;
  readonly found: number;
  readonly counted: number;
  /** How many fewer, and how many more, say nothing. */
  readonly fewer: number;
  readonly more: number;
  /** Whether more is only told, and the page tables are believed. */
  readonly believed: boolean;
}

/**
 * Page tables that lost entries are found out: the kernel counts the pages that it puts in, and those that it
 * swaps out. What is short becomes a reason, and in swap also what is too many.
 */
export function checkRss(kernel: Kernel, mm: Mm, counts: PageCounts, owner: Owner): void {
  const { anon, swap } = rssOf(kernel, mm, owner.threads);
  compare(owner.findings, {
    what: 'anonymous pages in the page tables against the rss counter',
    ...{ pages: 'pages', name: 'resident pages', found: counts.resident, counted: anon },
    // execve counts the next program's arguments here until it has its memory (acct_arg_size, fs/exec.c).
    fewer: owner.inExec * EXEC_ARGUMENT_PAGES,
    // A huge page is mapped first and counted then; anything else that is short was lost.
    more: owner.isRunning ? HUGE_PAGE : 0,
    believed: true,
  });
  if (counts.swapped === 0 && swap !== 0 && hadNoSwap(kernel)) {
    owner.findings.repairs.push({
      what: 'pages in swap',
      used: 'none, as there was no swap',
      instead: `${swap}`,
    });
    return;
  }
  compare(owner.findings, {
    what: 'swap entries in the page tables against the swap counter',
    ...{ pages: 'pages in swap', name: 'pages in swap', found: counts.swapped, counted: swap },
    // A fault gives the slot free and counts it before it puts the page in: what is too many may be the slot
    // of another process's page by now (do_swap_page, mm/memory.c).
    ...{ fewer: 0, more: 0, believed: false },
  });
}

/** Whether the kernel certainly never had a swap area: a count of pages in swap is damaged then. */
function hadNoSwap(kernel: Kernel): boolean {
  try {
    return swapAreaCount(kernel) === 0;
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return false;
  }
}

function compare(findings: Findings, compared: Compared): void {
  const { what, pages, name, found, counted, fewer, more, believed } = compared;
  if (found + fewer >= counted && found - counted <= more) {
    findings.checks.push({ what, result: 'agrees' });
    return;
  }
  findings.checks.push({ what, result: 'differs', detail: `${found} against ${counted}` });
  if (found + fewer < counted || !believed)
    findings.reasons.push(`has ${found} ${pages} in its page tables, but the kernel counted ${counted}`);
  else findings.repairs.push({ what: name, used: 'the page tables', instead: 'the rss counter' });
}

/** Why pages of an area cannot be had, after the area's name. */
export function notPresentReason({ pages, first, isSwap, why }: NotPresent): string {
  const state = isSwap ? 'in swap' : 'being moved or poisoned';
  const because = isSwap && why !== undefined ? `: ${why}` : '';
  return `has ${pages} pages ${state}, the first at 0x${first.toString(16)}${because}`;
}
