import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { repositoryRoot } from '../lab/node-tree.ts';

const path = join(repositoryRoot, 'docs/benchmarks.md');

const PREFACE = `# Benchmarks

\`npm run bench\` measures all of this anew and writes this page; \`npm run bench -- PART...\` measures one part and leaves the others as
they are (\`--quick\`: fewer and smaller, printed only). It needs what \`otherworld lab\` needs, 8 GiB of free memory, and a quiet machine. What
counts are ratios within one run: the times are of one small machine that emulates its guests in software.`;

/** A part's result: Markdown below its heading. */
export interface Section {
  readonly heading: string;
  readonly body: string;
}

/**
 * Puts the sections into docs/benchmarks.md in the place of those of the same heading; the others stay.
 *
 * @param order all headings, in the order of the page
 */
export function writeDocument(sections: readonly Section[], order: readonly string[]): void {
  const known = new Map(existsSync(path) ? readSections(readFileSync(path, 'utf8')) : []);
  for (const { heading, body } of sections) known.set(heading, body.trim());
  const parts = order.flatMap((heading) => {
    const body = known.get(heading);
    return body === undefined ? [] : [`## ${heading}\n${body}`];
  });
  writeFileSync(path, `${[PREFACE, ...parts].join('\n\n')}\n`);
}

function readSections(text: string): [heading: string, body: string][] {
  return text
    .split(/^## /m)
    .slice(1)
    .map((part) => {
      const end = part.indexOf('\n');
      return [part.slice(0, end), part.slice(end + 1).trim()];
    });
}

/** A Markdown table; the first column is text, the others numbers. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map((_, column) => (column === 0 ? '---' : '---:'))), ...rows.map(line)].join(
    '\n',
  );
}

/** What the figures are from: date, revision, processor, memory and kernel of this machine, and its load. */
export function describeMachine(): string {
  const model = cpus()[0]?.model.trim() ?? 'unknown processor';
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
  return `${new Date().toISOString().slice(0, 10)}, ${revision()}; ${cpus().length} × ${model}, ${memory}, Linux ${release()}, load average ${loadavg()[0]?.toFixed(1)} at the start`;
}

function revision(): string {
  const git = (...args: string[]): string =>
    execFileSync('git', ['-C', repositoryRoot, ...args], { encoding: 'utf8' }).trim();
  try {
    return `revision ${git('rev-parse', '--short', 'HEAD')}`;
  } catch {
    return 'unknown revision';
  }
}
