import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { copyFiles } from '../lab/channel.ts';
import { inGuest, until } from '../lab/demo/scene.ts';
import { repositoryRoot } from '../lab/node-tree.ts';
import type { Progress } from '../lab/progress.ts';
import { markdownTable } from './document.ts';
import { withGuest, withScratch } from './guest.ts';
import { dumpDead } from './tasks.ts';
import { median, race, spread } from './timing.ts';

/** How the pages of a process lie in physical memory: see large-process.py. */
const LAYOUTS = ['huge', 'scattered'] as const;
type Layout = (typeof LAYOUTS)[number];

const MIB = 2 ** 20;

/**
 * Page capture: a large process of a dead kernel from a vmcore to files, all on tmpfs, against `cp` of as
 * many bytes within tmpfs, in turn; once the whole command, once the writing of pages alone.
 *
 * @returns Markdown
 */
export async function benchPages(quick: boolean, progress: Progress): Promise<string> {
  const sizeMib = quick ? 128 : 1024;
  const rounds = quick ? 2 : 7;
  const guestMib = 2 * sizeMib + 768;
  return withScratch((guestMib + 3 * sizeMib + 64) * MIB, async (directory) => {
    const dump = join(directory, 'vmcore');
    const guest = { memoryMiB: guestMib, arm: false };
    const { pids, kernel } = await withGuest('pages', guest, progress, async (name, { kernelRelease }) => {
      progress.step(`filling two processes of ${sizeMib} MiB`);
      const started = await startProcesses(name, sizeMib);
      await dumpDead(name, dump);
      return { pids: started, kernel: kernelRelease };
    });
    const rows: string[][] = [];
    for (const layout of LAYOUTS) {
      progress.step(`extracting the process of ${layout} pages`);
      rows.push(...(await compare(directory, pids[layout], layout, rounds)));
    }
    return [
      `Processes of ${sizeMib} MiB in a guest of ${guestMib} MiB (Linux ${kernel}) that died; vmcore, images and the copies of \`cp\` are on one`,
      `tmpfs. In turn, ${rounds} rounds after one that warms up. The speed is that of \`cp\` in the same rounds, divided: more is better. "Pages`,
      'alone" is the time that the command spends in writing pages, without its start, symbols, types, checks and other images. One process has its',
      'memory as the kernel gives it, in huge pages; of the other no two neighbouring pages are neighbours in physical memory, the worst that can be.',
      '',
      markdownTable(['', 'runs', 'median s', 'min s', 'max s', 'speed'], rows),
    ].join('\n');
  });
}

async function startProcesses(guest: string, sizeMib: number): Promise<Record<Layout, number>> {
  await copyFiles(guest, join(import.meta.dirname, 'large-process.py'), `${guest}:/root/large-process.py`);
  const start = async (layout: Layout): Promise<number> => {
    const ready = `/root/ready-${layout}`;
    const command = `python3 /root/large-process.py ${sizeMib} ${layout} ${ready}`;
    const pid = await inGuest(guest, `setsid ${command} </dev/null >/dev/null 2>&1 & echo $!`);
    await until(guest, `test -e ${ready}`, 120);
    return Number(pid);
  };
  return { huge: await start('huge'), scattered: await start('scattered') };
}

const stageResult = z.object({ seconds: z.number(), bytes: z.number(), runs: z.number() });

async function compare(directory: string, pid: number, layout: Layout, rounds: number): Promise<string[][]> {
  const dump = join(directory, 'vmcore');
  const images = join(directory, 'images');
  const [source, target] = [join(directory, 'source'), join(directory, 'target')];
  const empty = (): void => {
    rmSync(target, { force: true });
    rmSync(images, { recursive: true, force: true });
    mkdirSync(images, { mode: 0o700 });
  };
  const stage = [process.execPath, join(import.meta.dirname, 'pages-stage.ts'), dump, String(pid), images];
  empty();
  const [first] = await race([{ name: 'pages', command: stage }], 0);
  const { bytes, runs } = stageResult.parse(JSON.parse(first!.output));
  fill(source, bytes);

  const pagesAlone: number[] = [];
  const keepPages = (output: string): void => {
    pagesAlone.push(stageResult.parse(JSON.parse(output)).seconds);
  };
  const extract = [
    join(repositoryRoot, 'otherworld'),
    'extract',
    dump,
    '--pid',
    String(pid),
    '--out',
    images,
  ];
  const [copy, whole] = await race(
    [
      { name: 'cp', command: ['cp', source, target], before: empty },
      { name: 'extract', command: extract, before: empty },
      { name: 'pages', command: stage, before: empty, after: keepPages },
    ],
    rounds,
  );
  empty();
  const base = median(copy!.seconds);
  const row = (name: string, count: string, seconds: readonly number[]): string[] => [
    `${layout} pages: ${name}`,
    count,
    ...spread(seconds).map((value) => value.toFixed(3)),
    (base / median(seconds)).toFixed(2),
  ];
  return [
    row(`\`cp\` of ${(bytes / MIB).toFixed(0)} MiB`, '', copy!.seconds),
    row('`otherworld extract`, whole command', String(runs), whole!.seconds),
    row('pages alone', String(runs), pagesAlone.slice(1)),
  ];
}

function fill(path: string, bytes: number): void {
  const block = Buffer.alloc(MIB, 0xa5);
  const fd = openSync(path, 'w');
  for (let written = 0; written < bytes; written += block.length) {
    writeSync(fd, block, 0, Math.min(block.length, bytes - written));
  }
  closeSync(fd);
}
