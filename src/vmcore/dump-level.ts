/** Kinds of pages that makedumpfile leaves out, by the bits of its option -d (makedumpfile(8)). */
const LEVELS: readonly (readonly [bit: number, pages: string])[] = [
  [2, 'unmapped caches'],
  [4, 'mapped caches'],
  [8, 'pages of processes'],
  [16, 'free pages'],
];

/**
 * What a dump lacks by its level, as part of a sentence; undefined if nothing but what is known to be zeros.
 */
export function describeDumpLevel(level: number | undefined): string | undefined {
  const kinds = LEVELS.filter(([bit]) => ((level ?? 0) & bit) !== 0).map(([, pages]) => pages);
  return kinds.length === 0 ? undefined : `${kinds.join(', ')} (makedumpfile -d ${level})`;
}
