import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { peerCommand, preparePeers } from './peers.ts';
import { race, timingTable } from './timing.ts';

const ROUNDS = 5;

/**
 * Listing all user processes of one vmcore with their memory maps: Otherworld against drgn and crash, whole commands,
 * in turn. The output of each is counted, so that nobody is fast by doing less.
 *
 * @param vmcore an ELF vmcore of a kernel of release `release`
 * @returns Markdown
 */
export function benchTasks(vmcore: string, release: string): string {
  const peers = preparePeers(release);
  const shared = dirname(resolve(vmcore));
  const inside = (file: string) => `/mnt/${file}`;
  const dump = resolve(vmcore).slice(shared.length + 1);
  const scripts = join(shared, 'bench-scripts');
  mkdirSync(scripts, { recursive: true });
  copyFileSync(join(import.meta.dirname, 'tasks-drgn.py'), join(scripts, 'tasks.py'));
  writeFileSync(join(scripts, 'tasks.crash'), 'foreach user vm\nquit\n');

  const otherworld = join(import.meta.dirname, '..', 'otherworld');
  const timings = race(
    [
      { name: 'otherworld inspect FILE maps', command: [otherworld, 'inspect', resolve(vmcore), 'maps'] },
      {
        name: 'drgn',
        command: peerCommand(peers, shared, [
          ...['drgn', '-q', '-c', inside(dump), '--no-default-symbols', '-s', peers.vmlinux],
          inside('bench-scripts/tasks.py'),
        ]),
      },
      {
        name: 'crash',
        command: peerCommand(peers, shared, [
          ...['crash', '-s', '-i', inside('bench-scripts/tasks.crash'), peers.vmlinux, inside(dump)],
        ]),
      },
    ],
    ROUNDS,
  );
  rmSync(scripts, { recursive: true });
  const counted = timings.map(({ name, output }) => `${name}: ${output.split('\n').length} lines`).join('; ');
  return `${timingTable(timings)}\n\nOutput: ${counted}.`;
}
