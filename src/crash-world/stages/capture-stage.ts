import { captureProcesses } from '../../capture/index.ts';
import { allowedLosses } from '../../config/losses.ts';
import type { Config } from '../../config/schema.ts';
import { installedServiceOf } from '../../config/service-units.ts';
import { type CriuVersion, restoreProblems } from '../../criu/images/index.ts';
import type { DirectoryIdentity, FileToCheck, GroupFiles, UnwrittenFile } from '../../model/file.ts';
import type { ProcessGroup } from '../../model/group.ts';
import type { Process } from '../../model/process.ts';
import type { Refusal } from '../../model/verdict.ts';
import { type ImagesRoom, imagesRoom } from '../../report/images-room.ts';
import type { IncidentReport } from '../../report/schema.ts';
import { messageWithCauses } from '../../system/thrown.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { criuVersion } from '../criu-version.ts';
import { mountedDisks } from '../files/disk-files.ts';
import { crashLoop, earlierReports } from '../incident/crash-loop.ts';
import {
  capturedReport,
  endedReport,
  noteTies,
  noteUnprotected,
  refusedReport,
  type Selection,
} from '../incident/process-reports.ts';
import { refuseLate } from '../processes/late-refusals.ts';
import type { WriteBack } from '../write-back/index.ts';
import { required, stage } from './stage-list.ts';
import { imagesDirectory, type Work } from './work.ts';

export const captureStage = stage({
  name: 'capture',
  needs: {
    kernel: required<Kernel>(),
    writeBack: required<WriteBack>(),
    selection: required<Selection>(),
  },
  run: ({ kernel, writeBack, selection }, work) => {
    const barred = barredProcess(work);
    const { config } = work.manifest;
    const conditions = { criu: criuVersion(), barred, writeBack, config, room: roomForImages(work) };
    return { groups: captureGroups(kernel, selection, conditions, work.report) };
  },
});

/** The process on the panicking CPU, if it has been there too often. */
function barredProcess({ report, manifest, place }: Work): CaptureConditions['barred'] {
  const { panic } = report;
  if (panic?.process === undefined) return undefined;
  const { reports, problems } = earlierReports(place.id, place.incidents);
  report.notes.push(...problems);
  const reason = crashLoop(panic, reports, manifest.config);
  return reason === undefined ? undefined : { pid: panic.process.pid, reason };
}

/** What there is for images. If that cannot be told, it is found out by writing them. */
function roomForImages(work: Work): ImagesRoom | undefined {
  const directory = imagesDirectory(work);
  try {
    return imagesRoom(directory);
  } catch (error) {
    work.report.notes.push(`how much is free in ${directory} is not known: ${messageWithCauses(error)}`);
    return undefined;
  }
}

/** What decides, besides the processes themselves, who can come back. */
export interface CaptureConditions {
  /** Of the CRIU that will restore; undefined if it does not say. */
  readonly criu: CriuVersion | undefined;
  /** A process that is not brought back whatever its state, with the reason. */
  readonly barred: { readonly pid: number; readonly reason: string } | undefined;
  /** What has written the disks' files back. */
  readonly writeBack: WriteBack;
  readonly room: ImagesRoom | undefined;
  readonly config: Pick<Config, 'services' | 'losses' | 'crash-kernel'>;
}

/**
 * Captures the selected processes and their descendants, and enters all of them into the report. What must
 * not or cannot come back is refused there, group by group.
 */
function captureGroups(
  kernel: Kernel,
  selection: Selection,
  { criu, barred, writeBack, room, config }: CaptureConditions,
  report: IncidentReport,
): ProcessGroup[] {
  const roots = selection.selected.map(({ candidate }) => candidate.pid);
  const { groups, refused, ended, ties, dependences, notes } = captureProcesses(kernel, {
    roots,
    includeDescendants: true,
    forProcedures: true,
    timeLimitMinutes: config['crash-kernel']['time-limit-minutes'],
    disks: mountedDisks,
    services: { sandboxes: config.services.sandboxes, serviceOf: installedServiceOf },
    losses: allowedLosses(config, selection.rules, selection.candidates),
  });
  report.notes.push(...notes);
  const late = refuseLate(groups, {
    problemsOf: (group) => [
      ...barredIn(group, barred),
      ...restoreProblems(group, criu),
      ...unwrittenIn(group, writeBack, (sentence) => report.notes.push(sentence)),
    ],
    ...{ dependences, room },
  });
  const entries = [
    ...[...refused, ...late.refused].map((refusal) => refusedReport(refusal, selection)),
    ...ended.map((process) => endedReport(process, selection)),
  ];
  const kept = late.groups.map((group) => {
    const made = madeFiles(group.files, writeBack).map(
      ({ file: { path, identity }, made: { inode } }) =>
        `${path} is made anew: inode ${inode} instead of ${identity.inode}`,
    );
    for (const process of group.processes) {
      const entry = capturedReport(process, group, selection);
      entries.push({ ...entry, notes: [...entry.notes, ...made] });
    }
    return { ...group, files: { ...group.files, filesToCheck: filesToFind(group.files, writeBack) } };
  });
  // Instead of what the selection had entered.
  report.processes = entries;
  noteTies(report, ties);
  noteUnprotected(report, selection.candidates);
  return kept;
}

function barredIn(group: ProcessGroup, barred: { pid: number; reason: string } | undefined): Refusal[] {
  const process = group.processes.find(({ pid }) => pid === barred?.pid);
  return process === undefined || barred === undefined
    ? []
    : [{ pid: process.pid, comm: process.comm, reasons: [barred.reason] }];
}

/**
 * Refuses the processes of a group that uses a file of which the disk does not have all: they would go on
 * with an older content. A file that writing back did not come upon (its lists were damaged) is written now.
 */
export function unwrittenIn(
  group: {
    readonly processes: readonly Pick<Process, 'pid' | 'comm'>[];
    readonly files: Pick<GroupFiles, 'unwritten'>;
  },
  writeBack: WriteBack,
  note: (sentence: string) => void,
): Refusal[] {
  const { unwritten } = group.files;
  writeBack.write(
    unwritten.filter((file) => writeBack.outcomeOf(file) === undefined),
    note,
  );
  const reasons = unwritten.flatMap((file) => {
    const problem = writeBack.outcomeOf(file)?.problem;
    return problem === undefined ? [] : [`uses ${file.path}, which ${problem}`];
  });
  if (reasons.length === 0) return [];
  return group.processes.map(({ pid, comm }) => ({ pid, comm, reasons }));
}

/** A file that writing back had to make. */
interface MadeFile {
  readonly file: UnwrittenFile;
  readonly made: DirectoryIdentity;
}

/** The files of a group that were made: another inode than the group knew. */
function madeFiles({ unwritten }: Pick<GroupFiles, 'unwritten'>, writeBack: WriteBack): MadeFile[] {
  return unwritten.flatMap((file) => {
    const made = writeBack.outcomeOf(file)?.made;
    return made === undefined ? [] : [{ file, made }];
  });
}

/**
 * The files that are to be there when a group is restored. They are known by their inodes: a path can be one
 * of several.
 */
export function filesToFind(
  { filesToCheck, unwritten }: Pick<GroupFiles, 'filesToCheck' | 'unwritten'>,
  writeBack: WriteBack,
): FileToCheck[] {
  const keyOf = ({ inode, generation }: { inode: number; generation: number }): string =>
    `${inode} ${generation}`;
  const made = new Map(
    // Of several the first.
    madeFiles({ unwritten }, writeBack)
      .toReversed()
      .map(({ file, made }) => [keyOf(file.identity), made]),
  );
  return filesToCheck.map((checked) => ({
    ...checked,
    identity: { ...checked.identity, ...made.get(keyOf(checked.identity)) },
  }));
}
