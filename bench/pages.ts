import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { race, timingTable } from './timing.ts';

const ROUNDS = 5;

/**
 * Page capture: `otherworld extract` of one large process from a vmcore to tmpfs, against `cp` of as many bytes within
 * tmpfs, whole commands, in turn. Start-up, symbols, types and every check of the capture are in Otherworld's time.
 *
 * @param vmcore an ELF vmcore, best on tmpfs so that no disk is measured
 * @param pid the process to extract
 * @returns Markdown
 */
export function benchPages(vmcore: string, pid: number): string {
  const work = mkdtempSync('/dev/shm/otherworld-bench-');
  const images = join(work, 'images');
  const source = join(work, 'source');
  const target = join(work, 'target');
  const extract = [
    join(import.meta.dirname, '..', 'otherworld'),
    ...['extract', resolve(vmcore), '--pid', String(pid), '--out', images],
  ];
  try {
    race([{ name: 'size', command: extract, before: () => empty(images) }], 0);
    const bytes = pageBytes(images);
    fill(source, bytes);
    const timings = race(
      [
        {
          name: `cp of ${mebibytes(bytes)} MiB`,
          command: ['cp', source, target],
          before: () => rmSync(target, { force: true }),
        },
        {
          name: `otherworld extract, ${mebibytes(bytes)} MiB of pages`,
          command: extract,
          before: () => empty(images),
        },
      ],
      ROUNDS,
    );
    return timingTable(timings);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function empty(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { mode: 0o700 });
}

function pageBytes(images: string): number {
  return readdirSync(images)
    .filter((name) => name.startsWith('pages-'))
    .reduce((sum, name) => sum + statSync(join(images, name)).size, 0);
}

function fill(path: string, bytes: number): void {
  const block = Buffer.alloc(1 << 20, 0xa5);
  const fd = openSync(path, 'w');
  for (let written = 0; written < bytes; written += block.length) {
    writeSync(fd, block, 0, Math.min(block.length, bytes - written));
  }
  closeSync(fd);
}

function mebibytes(bytes: number): string {
  return (bytes / (1 << 20)).toFixed(0);
}
