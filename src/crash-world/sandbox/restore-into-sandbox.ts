import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import { RUNTIME_DIRECTORY } from '../../config/paths.ts';
import { SANDBOX_PROGRAM_MINUTES } from '../../config/restore-time.ts';
import { serviceOf } from '../../config/service-units.ts';
import {
  type HeldGroup,
  holdImages,
  type RestoreOptions,
  type RestoreSeconds,
  readPreparation,
} from '../../criu/restore/index.ts';
import { inNamespacesOf } from '../../system/namespaces.ts';
import { cgroupOf, processStat } from '../../system/proc.ts';
import { messageWithCauses } from '../../system/thrown.ts';
import { type FoundFile, type FoundFiles, notePaths } from '../files/found-file.ts';
import { checkNoted, makeAndCheckFiles } from '../files/group-files.ts';
import { changedWhileHeld, examineGroup } from '../processes/examine.ts';
import { takenNumbers } from '../processes/pids.ts';
import { runtimeProgram } from '../runtime-program.ts';
import { memoryProblem } from '../stages/restore-stage.ts';
import type { Handover } from '../systemd/handover.ts';
import { show } from '../systemd/systemctl.ts';
import { type ToRestore, timeForOne } from '../time-share.ts';
import { MadeFiles } from './made-files.ts';
import { openWay } from './made-paths.ts';
import { namespaceDifferences, namespaceOf, sandboxKinds } from './own-namespaces.ts';
import { movePrivateFiles } from './private-directories.ts';
import { type MountLine, parseMounts, sandboxDifferences } from './sandbox-mounts.ts';
import { readSandboxPlan, type SandboxPlan } from './sandbox-plan.ts';
import { strangePrograms } from './sandbox-programs.ts';
import { answeredProblem } from './unanswered.ts';
import { changedSince } from './unchanged-files.ts';

/** One group of a unit. */
export interface HeldInSandbox {
  readonly group: number;
  /** Without zombies. */
  readonly pids: readonly number[];
  /** How long its restore took. */
  readonly seconds: RestoreSeconds;
}

/** The processes of a unit in their sandbox, held: to be released, or ended. */
export interface HeldUnit {
  readonly groups: readonly HeldInSandbox[];
  /**
   * Lets them run, each in its cgroup: all of them, or an Error is thrown, and the others are to be ended.
   * None of them runs if one of their files was changed since it was noted.
   * @returns small things that could not be set again
   */
  release(placeOf: (pid: number) => string): string[];
  /** Ends them, and takes away the files that were made for them. @returns what is left */
  end(): Promise<string[]>;
}

/** What became of the processes of a unit. */
export type SandboxResult = { readonly problems: readonly string[] } | HeldUnit;

type SandboxedUnit = Handover['sandboxes'][number];

/** Where a group is restored, and who waits for it to be. */
interface Place {
  readonly unit: string;
  readonly placeholder: number;
  readonly waiting: readonly ToRestore[];
}

interface LateGroup {
  readonly group: number;
  readonly directory: string;
  readonly plan: SandboxPlan;
}

interface HeldLate extends LateGroup {
  readonly hold: HeldGroup;
}

function mountsOf(pid: number | 'self'): MountLine[] {
  return parseMounts(readFileSync(`/proc/${pid}/mountinfo`, 'latin1'));
}

/**
 * Restores the processes of a unit into the mount namespace of its placeholder, and holds them: all of them,
 * or none. None if the sandbox is not the one that they had, or a file in it is another one. Nothing is
 * thrown.
 * @param waiting groups of other units that come after it
 */
export async function restoreIntoSandbox(
  unit: SandboxedUnit,
  placeholder: number,
  waiting: readonly ToRestore[],
): Promise<SandboxResult> {
  const held: HeldLate[] = [];
  const made = new MadeFiles();
  const end = async (): Promise<string[]> => {
    const left: string[] = [];
    for (const { hold } of held)
      await hold.end().catch((error: unknown) => left.push(messageWithCauses(error)));
    return [...left, ...made.remove()];
  };
  try {
    const groups = unit.groups.map((one) => ({ ...one, plan: readSandboxPlan(one.directory) }));
    const wrong = sandboxProblems(unit.unit, groups, placeholder);
    const place = { unit: unit.unit, placeholder, waiting };
    const problems = wrong.length > 0 ? wrong : await holdAll(groups, place, held, made);
    if (problems.length > 0) return { problems: [...problems, ...(await end())] };
    return {
      groups: held.map(({ group, plan, hold }) => ({
        group,
        pids: plan.group.processes.filter(({ isZombie }) => !isZombie).map(({ pid }) => pid),
        seconds: hold.seconds,
      })),
      release: (placeOf) => {
        const changed = groups.flatMap(({ plan }) => changedWhileHeld(plan.group, plan.unchanged));
        if (changed.length > 0) throw new Error(changed.join('; '));
        const notes = held.flatMap(({ hold }) => hold.releaseInto(placeOf).notes);
        made.keep();
        return notes;
      },
      end,
    };
  } catch (error) {
    return { problems: [messageWithCauses(error), ...(await end())] };
  }
}

/**
 * Restores the groups one after the other.
 * @param place its unit, and what waits in others
 * @param held gets those that are restored, which do not run
 * @returns why one of them cannot be
 */
async function holdAll(
  groups: readonly LateGroup[],
  { unit, placeholder, waiting }: Place,
  held: HeldLate[],
  made: MadeFiles,
): Promise<readonly string[]> {
  const found = new Map<string, FoundFile>();
  const files = inMountNamespaceFiles(groups, placeholder, found, made);
  if (files.length > 0) return files;
  const root = `/proc/${placeholder}/root`;
  const open = groups.flatMap(({ plan }) => plan.made.flatMap((path) => openWay(path, root) ?? []));
  if (open.length > 0) return open;
  for (const [i, one] of groups.entries()) {
    const after = [...groups.slice(i + 1).map(({ plan }) => plan), ...waiting];
    const result = await holdOne(one, { unit, placeholder, waiting: after }, found).finally(() =>
      made.came(),
    );
    if ('problems' in result) return result.problems;
    held.push({ ...one, hold: result });
    await result.orphan();
  }
  return [];
}

/** Groups of units that wait, as far as their plans can be read. */
export function toRestoreOf(units: readonly SandboxedUnit[]): ToRestore[] {
  return units.flatMap(({ groups }) =>
    groups.flatMap(({ directory }) => {
      try {
        return [readSandboxPlan(directory)];
      } catch {
        // It is seen when its turn comes.
        return [];
      }
    }),
  );
}

/** Why the sandbox around a placeholder is not the one that processes were in; and gives it their files. */
function sandboxProblems(unit: string, groups: readonly LateGroup[], placeholder: number): string[] {
  if (processStat(placeholder)?.isZombie !== false) return ['the placeholder in its sandbox has ended'];
  if (serviceOf(cgroupOf(placeholder)) !== unit)
    return ['the placeholder in its sandbox is none of the unit'];
  if (namespaceOf(placeholder, 'mnt') === namespaceOf('self', 'mnt'))
    return [`${unit} has no sandbox any more`];
  const [inside, outside] = [mountsOf(placeholder), mountsOf('self')];
  const differences = groups.flatMap(({ plan }) => sandboxDifferences(plan.sandbox, inside, outside));
  if (differences.length > 0) return [...new Set(differences)];
  const strange = strangePrograms(placeholder);
  if (strange.length > 0) return strange;
  const joined = show(unit, 'JoinsNamespaceOf').get('JoinsNamespaceOf') ?? '';
  if (joined !== '') return [`its sandbox has directories that ${joined} has as well (JoinsNamespaceOf=)`];
  const answered = answeredProblem(groups);
  if (answered !== undefined) return [answered];
  const own = groups.flatMap(({ plan }) => namespaceDifferences(plan.sandbox, placeholder));
  if (own.length > 0) return [...new Set(own)];
  const user = userProblem(unit, groups, placeholder);
  if (user !== undefined) return [user];
  for (const { plan } of groups) movePrivateFiles(plan.sandbox.privateDirectories, inside, outside);
  return [];
}

/** The number that systemd gives a user for the time of a run (`DynamicUser=`) may be another's now. */
function userProblem(unit: string, groups: readonly LateGroup[], placeholder: number): string | undefined {
  if (show(unit, 'DynamicUser').get('DynamicUser') !== 'yes') return undefined;
  const status = readFileSync(`/proc/${placeholder}/status`, 'latin1');
  const uid = Number(/^Uid:\t(\d+)/m.exec(status)?.[1]);
  const isKnown = groups.every(({ plan }) => plan.uids.includes(uid));
  return isKnown ? undefined : `the dynamic user of ${unit} has another number now, ${uid}`;
}

/**
 * Makes and compares the files of the groups, by the paths that they have in the sandbox. The images need not
 * be seen there.
 */
function inMountNamespaceFiles(
  groups: readonly LateGroup[],
  placeholder: number,
  found: Map<string, FoundFile>,
  files: MadeFiles,
): string[] {
  const made = new Set<string>();
  return groups.flatMap(({ directory, plan }) => {
    const images = openSync(directory, constants.O_RDONLY);
    try {
      return inNamespacesOf(placeholder, () => {
        const place = `/proc/self/fd/${images}`;
        const before = new Set(made);
        const wrong = makeAndCheckFiles(place, made);
        files.note(made.difference(before));
        files.await(plan.made);
        if (wrong.length > 0) return wrong.map(({ path, problem }) => `${path} ${problem}`);
        const unseen = notePaths(
          plan.group.files.flatMap(({ named }) => named ?? []),
          found,
        );
        const swapped = checkNoted(readPreparation(place).checks, found);
        const changed = changedSince(plan.unchanged, found);
        return [...unseen, ...swapped.map(({ path, problem }) => `${path} ${problem}`), ...changed];
      });
    } finally {
      closeSync(images);
    }
  });
}

const SANDBOX_TIME = {
  minutes: SANDBOX_PROGRAM_MINUTES,
  limit: `the ${SANDBOX_PROGRAM_MINUTES} minutes for sandboxes`,
};

/** How a group of a unit is restored into the sandbox of its placeholder, from now on. */
export function optionsInSandbox(
  plan: Pick<SandboxPlan, 'group' | 'sandbox' | 'pagesBytes' | 'ringSeconds'>,
  { unit, placeholder, waiting }: Place,
  found: FoundFiles,
): RestoreOptions {
  return {
    command: runtimeProgram('criu'),
    inside: {
      pid: placeholder,
      programs: RUNTIME_DIRECTORY,
      remade: new Set(plan.sandbox.privateDirectories.map(({ path }) => path)),
    },
    unit,
    most: timeForOne(SANDBOX_TIME, plan, waiting),
    taken: takenNumbers,
    examine: () => [...strangersIn(plan, placeholder), ...examineGroup(plan.group, found)],
  };
}

async function holdOne(
  { directory, plan }: LateGroup,
  place: Place,
  found: FoundFiles,
): Promise<HeldGroup | { readonly problems: readonly string[] }> {
  const problem = memoryProblem(plan.pagesBytes);
  if (problem !== undefined) return { problems: [problem] };
  const result = await holdImages(directory, optionsInSandbox(plan, place, found));
  if (result.restored === 'held') return result;
  const more = result.errors.filter((error) => !result.reason.endsWith(error));
  return { problems: [result.reason, ...more.slice(0, 3)] };
}

/** Restored processes that are not in the sandbox. */
function strangersIn({ group }: Pick<SandboxPlan, 'group'>, placeholder: number): string[] {
  return group.processes
    .filter(({ isZombie }) => !isZombie)
    .filter(({ pid }) =>
      sandboxKinds.some((kind) => namespaceOf(pid, kind) !== namespaceOf(placeholder, kind)),
    )
    .map(({ pid }) => `process ${pid} is not in its sandbox`);
}
