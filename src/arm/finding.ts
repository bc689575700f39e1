/** One thing that Otherworld needs. `missing` keeps it from working, `advice` weakens it. */
export interface Finding {
  readonly what: string;
  readonly state: 'good' | 'advice' | 'missing';
  /** What was found. */
  readonly found: string;
  /** What to change; absent if good. */
  readonly todo?: string;
}
