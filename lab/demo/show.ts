import type { Row } from './verify.ts';

const widest = 116;

/** A line in pieces that are not too wide, at blanks where there are any late enough. */
function wrapped(line: string): string[] {
  const pieces: string[] = [];
  let rest = [...line];
  while (rest.length > widest) {
    const blank = rest.lastIndexOf(' ', widest);
    const end = blank > widest / 2 ? blank : widest;
    pieces.push(rest.slice(0, end).join(''));
    rest = rest.slice(end === blank ? end + 1 : end);
  }
  return [...pieces, rest.join('')];
}

/** A terminal screen in a frame, without empty lines at its end; lines that are too wide are wrapped. */
export function frame(title: string, screen: string): string {
  const lines = screen.trimEnd().split('\n').flatMap(wrapped);
  const width = Math.max(title.length + 2, ...lines.map((line) => [...line].length));
  const top = `┌ ${title} ${'─'.repeat(width - title.length)}┐`;
  const body = lines.map((line) => `│ ${line}${' '.repeat(width - [...line].length)} │`);
  return [top, ...body, `└${'─'.repeat(width + 2)}┘`].join('\n');
}

/** The rows in columns, one line each, parts set off from each other. */
export function table(rows: readonly Row[], colour: boolean): string {
  const head = ['', 'before', 'after', ''];
  const width = (cell: (row: Row) => string, title: string): number =>
    Math.max(title.length, ...rows.map((row) => cell(row).length));
  const widths = [
    width(({ what }) => what, ''),
    width(({ before }) => before, 'before'),
    width(({ after }) => after, 'after'),
  ];
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('   ')
      .trimEnd();
  const parts = [...new Set(rows.map(({ part }) => part))];
  return parts
    .flatMap((part) => [
      line([part, ...head.slice(1)]),
      ...rows
        .filter((row) => row.part === part)
        .map(({ what, before, after, ok }) => line([what, before, after, mark(ok, colour)])),
      '',
    ])
    .join('\n');
}

function mark(ok: boolean, colour: boolean): string {
  if (!colour) return ok ? 'yes' : 'NO';
  return ok ? '\x1b[32myes\x1b[0m' : '\x1b[31mNO\x1b[0m';
}
