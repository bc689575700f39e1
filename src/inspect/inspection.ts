/** What an inspection found: for machines and for people. Only one of the two is asked for. */
export interface Inspection {
  /** Plain data for JSON; addresses are strings such as `0xffff888003a4c000`. */
  json(): object;
  /** Lines without the last newline. */
  text(): string;
  /**
   * What is missing from it or doubtful in it, as sentences: the command says so and ends with another
   * status.
   */
  readonly problems?: readonly string[];
  /** What explains an empty answer that is whole. */
  readonly remarks?: readonly string[];
}

/** Right-aligns numbers and left-aligns the rest, each column as wide as its widest cell. */
export function alignedTable(
  header: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string {
  const widths = header.map((title, column) =>
    rows.reduce((width, row) => Math.max(width, String(row[column] ?? '').length), title.length),
  );
  const isNumber = header.map(
    (_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === 'number'),
  );
  const line = (cells: readonly (string | number)[]): string =>
    cells
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return isNumber[column] ? String(cell).padStart(width) : String(cell).padEnd(width);
      })
      .join('  ')
      .trimEnd();
  return [line(header), ...rows.map(line)].join('\n');
}
