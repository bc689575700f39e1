import type { Command } from 'commander';
import { roomSentences } from '../arm/room-for-images.ts';
import { type ProtectedProcess, readStatus, type Status } from '../arm/status.ts';
import { loadConfig } from '../config/config.ts';
import { printable } from '../report/printable.ts';
import { requireRoot } from './root.ts';

const mebibytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;

const MOST_CHARACTERS = 60;

/**
 * How processes are called in one line: by their names, or, where some have the same one, by their command
 * lines.
 */
export function namesOf(processes: readonly ProtectedProcess[]): string[] {
  const names = processes.map(({ comm }) => comm);
  return processes.map(({ pid, comm, commandLine }) => {
    const isShared = names.indexOf(comm) !== names.lastIndexOf(comm);
    return `${isShared ? (commandLine ?? comm).slice(0, MOST_CHARACTERS) : comm} (${pid})`;
  });
}

/** Lines about the protected processes that would not come back. */
async function whoIsRefused({ state, rules }: Status): Promise<string[]> {
  const pids = [...new Set(rules.flatMap(({ processes }) => processes.map(({ pid }) => pid)))];
  // There another panic is not survived by anybody.
  if (state === 'crash world') return [];
  const { checkInBrief } = await import('../check/index.ts');
  return checkInBrief(pids);
}

function roomLines({ directory, neededBytes, tmpfsBytes, freeBytes }: Status['images']): string[] {
  if (neededBytes === undefined || tmpfsBytes === undefined || freeBytes === undefined) return [];
  return [
    `images: ${Math.ceil(neededBytes / 2 ** 20)} MiB needed after a panic, and up to ${mebibytes(tmpfsBytes)} for files ` +
      `on tmpfs, ${Math.floor(freeBytes / 2 ** 20)} MiB free for ${directory}`,
  ];
}

/** What people are shown. */
export function print(status: Status): string {
  const since = status.armedAt === undefined ? '' : ` since ${status.armedAt}`;
  const atWork = status.isAtWork ? ' (an otherworld that arms or builds is at work now)' : '';
  const explain: Record<Status['state'], string> = {
    armed: `armed for ${status.kernel}${since}`,
    stale: `armed for ${status.kernel}${since}, but ${status.hint}`,
    'not armed': `not armed (kernel ${status.kernel}): ${status.reservedBytes === 0 ? 'no memory is reserved for it, see otherworld doctor' : 'otherworld arm'}`,
    'armed by another program': 'a crash kernel is loaded, but not by Otherworld: otherworld arm replaces it',
    'cannot tell': `a crash kernel is loaded, and otherworld arm loaded one${since}; whether it is the same cannot be told: ${status.hint}`,
    'crash world':
      'this is the crash world: a second panic would reboot the machine; reboot when it suits you',
  };
  const rules = status.rules.map(({ rule, processes, hint }) => {
    const found = namesOf(processes).join(', ');
    const nobody = `no such process now${hint === undefined ? '' : ` (${hint})`}`;
    return `  ${rule.padEnd(28)}  ${found || nobody}`;
  });
  const { neededBytes, reclaimableBytes } = status;
  const memory = [
    `memory: ${mebibytes(status.reservedBytes)} reserved`,
    ...(neededBytes === undefined ? [] : [`${mebibytes(neededBytes)} needed`]),
    ...(reclaimableBytes === undefined
      ? []
      : [`up to ${mebibytes(reclaimableBytes)} taken back after a panic`]),
  ].join(', ');
  const { images } = status;
  const isHere = status.state === 'crash world';
  return [
    `${explain[status.state]}${atWork}`,
    ...(isHere ? [] : [memory, ...roomLines(images)]),
    ...(status.encryptionProblem === undefined ? [] : [status.encryptionProblem]),
    ...(status.lostComputing === undefined ? [] : [status.lostComputing]),
    rules.length === 0 ? 'nothing is protected: otherworld protect' : 'protected, with descendants:',
    ...rules,
    ...(status.mayLose.length === 0
      ? []
      : [`all of it may lose ${status.mayLose.join(', ')} ([losses] of the configuration)`]),
    ...status.ruleProblems,
    ...(status.memoryProblem === undefined ? [] : [status.memoryProblem]),
    ...(isHere ? [] : roomSentences(images)),
  ].join('\n');
}

/** Whether a panic now would bring back what the rules hold, as far as it is known. */
export function isWell({ state, ruleProblems, memoryProblem, encryptionProblem, images }: Status): boolean {
  const problems = [...ruleProblems, memoryProblem, encryptionProblem, images.problem];
  return state === 'armed' && problems.every((problem) => problem === undefined);
}

/**
 * `otherworld status`: exit status 0 if armed, with all rules that there were, memory enough for what they
 * hold, room for its images, and memory that can be read after a panic; 1 if not.
 */
export function registerStatus(program: Command): void {
  program
    .command('status')
    .description(
      'show whether the system is armed for this kernel, what is protected, and whether memory and disk are enough for it. Exit status 1 if it is not armed, rules cannot be read, or something is not enough',
    )
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      requireRoot('status');
      const status = readStatus(loadConfig());
      process.exitCode = isWell(status) ? 0 : 1;
      if (options.json) {
        console.log(JSON.stringify(status, undefined, 2));
        return;
      }
      console.log(printable(print(status)));
      // What is known is there before anything is looked at: that takes its time.
      const refused = await whoIsRefused(status);
      if (refused.length > 0) console.log(['of what is protected:', ...refused].join('\n'));
    });
}
