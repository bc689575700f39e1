import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import {
  COMMON_BYTES_PER_SECOND,
  SANDBOX_PROGRAM_MINUTES,
  secondsForRestores,
} from '../config/restore-time.ts';
import {
  type ImagesRoom,
  memoryFileSystemProblem,
  ROOM_REMEDY,
  roomOf,
  roomProblem,
} from '../report/images-room.ts';
import { type FreeSpace, freeSpace } from '../system/free-space.ts';
import { codeOf, messageOf } from '../system/thrown.ts';
import { type ImagesNeed, imagesNeed } from './images-need.ts';

/** What there is to say of the room for images. */
export interface RoomFound {
  readonly need: ImagesNeed;
  readonly room: ImagesRoom;
  /** That protected processes would not come back for lack of room, and what to do; undefined if none. */
  readonly problem: string | undefined;
  /** The same of files on tmpfs that nobody of them uses. */
  readonly tmpfsProblem: string | undefined;
  /** That more may be needed: some of it could not be looked at; undefined if all could. */
  readonly unknown: string | undefined;
  /** That the disk has to be faster than many are, and what to do; undefined if not. */
  readonly rateProblem: string | undefined;
}

/** Nothing could be told; `unknown` says why. */
export interface RoomUnknown {
  readonly need?: undefined;
  readonly problem?: undefined;
  readonly tmpfsProblem?: undefined;
  readonly rateProblem?: undefined;
  readonly unknown: string;
}

/** What of the configuration decides about the room. */
export interface RoomConfig {
  readonly images: { readonly directory: string };
  readonly tmpfs: { readonly 'max-mebibytes': number };
  readonly 'crash-kernel': { readonly 'time-limit-minutes': number };
}

/** What is asked of the program that looks. */
export interface RoomQuestion {
  readonly pids: readonly number[];
  readonly maxMebibytes: number;
  readonly directory: string;
}

/** Its answer. */
export interface RoomAnswer {
  readonly need: ImagesNeed;
  readonly free: FreeSpace;
}

/** Looks at processes and file systems, of which some may never answer: in a process of its own. */
export function answerRoom({ pids, maxMebibytes, directory }: RoomQuestion): RoomAnswer {
  return { need: imagesNeed(pids, maxMebibytes), free: freeSpace(directory) };
}

const LOOKING_PROGRAM = join(import.meta.dirname, 'room-for-images-main.ts');
/** It takes a second or two, ten where nothing is fast. */
const LOOKING_MILLISECONDS = 60_000;
/** Of what it says if it fails. */
const SAID_CHARACTERS = 300;

/** Asks a process of its own; in a bundle, which has no other programs, this one. */
function ask(question: RoomQuestion): RoomAnswer {
  if (!existsSync(LOOKING_PROGRAM)) return answerRoom(question);
  const { error, status, signal, stdout, stderr } = spawnSync(process.execPath, [LOOKING_PROGRAM], {
    input: JSON.stringify(question),
    encoding: 'utf8',
    timeout: LOOKING_MILLISECONDS,
    killSignal: 'SIGKILL',
    maxBuffer: 2 ** 20,
  });
  if (error !== undefined && codeOf(error) === 'ETIMEDOUT') {
    const seconds = LOOKING_MILLISECONDS / 1000;
    throw new Error(`a file system or a process has not answered within ${seconds} s`);
  }
  if (error !== undefined) throw error;
  if (status !== 0)
    throw new Error(stderr.trim().slice(-SAID_CHARACTERS) || `ended with ${signal ?? status}`);
  return JSON.parse(stdout);
}

/**
 * Compares what the images need now with what is free where they would be written. It neither throws nor
 * waits for what does not answer: nothing else may fail for it.
 * @param pids those that the rules name
 * @param answer who looks
 */
export function lookAtRoom(
  pids: () => readonly number[],
  config: RoomConfig,
  answer: (question: RoomQuestion) => RoomAnswer = ask,
): RoomFound | RoomUnknown {
  try {
    const { need, free } = answer({
      pids: pids(),
      maxMebibytes: config.tmpfs['max-mebibytes'],
      directory: config.images.directory,
    });
    return judgeRoom(need, roomOf(free), config['crash-kernel']['time-limit-minutes']);
  } catch (error) {
    return { unknown: `whether there is room for the images cannot be told: ${messageOf(error)}` };
  }
}

/** All that there is to say of it, a sentence each. */
export function roomSentences(
  room: Pick<RoomFound | RoomUnknown, 'problem' | 'tmpfsProblem' | 'rateProblem' | 'unknown'>,
): string[] {
  const all = [room.problem, room.tmpfsProblem, room.rateProblem, room.unknown];
  return all.filter((said) => said !== undefined);
}

/** Until the first image is written, and what restores take besides reading. */
const OTHER_SECONDS = 60;
/** What the configuration takes as crash-kernel.time-limit-minutes, at most. */
const MOST_MINUTES = 1440;

const mebibytes = (bytes: number): number => Math.ceil(bytes / 2 ** 20);

/**
 * The images, and the files on tmpfs, are written and read within the time limit of the resurrection, with
 * all the rest; those of services in sandboxes are read after that, in a time of their own.
 */
function rateProblemOf(
  { processes, tmpfsBytes, sandboxBytes = 0 }: ImagesNeed,
  minutes: number,
): string | undefined {
  const bytes = processes.bytes + tmpfsBytes;
  const moved = 2 * bytes - sandboxBytes;
  const rateOf = (count: number, limit: number): number =>
    count / Math.max(1, secondsForRestores(limit, OTHER_SECONDS));
  const problems: string[] = [];
  const rate = rateOf(moved, minutes);
  if (rate > COMMON_BYTES_PER_SECOND) {
    const enough = minutesFor(moved / COMMON_BYTES_PER_SECOND);
    const remedy =
      enough > MOST_MINUTES ? '' : `set crash-kernel.time-limit-minutes to ${enough} and arm again, `;
    problems.push(
      `the images of what is protected now have to be written and read within ${minutes} minutes, which takes a disk with ` +
        `more than ${mebibytes(rate)} MiB/s all the time, or the largest do not come back: ${remedy}` +
        'have images.directory on a disk that is as fast, or protect fewer processes',
    );
  }
  const sandboxRate = rateOf(sandboxBytes, SANDBOX_PROGRAM_MINUTES);
  if (sandboxRate > COMMON_BYTES_PER_SECOND)
    problems.push(
      `the images of services in sandboxes have to be read within ${SANDBOX_PROGRAM_MINUTES} minutes, whatever the ` +
        `configuration says, which takes a disk with more than ${mebibytes(sandboxRate)} MiB/s, or the largest do not ` +
        'come back: have images.directory on a disk that is as fast, or protect fewer processes',
    );
  return problems.length === 0 ? undefined : problems.join('; ');
}

/** The time limit with which so many seconds are left for what is written and read. */
function minutesFor(seconds: number): number {
  const perMinute = secondsForRestores(1, 0);
  return Math.ceil((seconds + OTHER_SECONDS) / perMinute);
}

/**
 * What there is to say of a need and a room.
 * @param minutes `time-limit-minutes` of the configuration
 */
export function judgeRoom(need: ImagesNeed, room: ImagesRoom, minutes: number): RoomFound {
  const { processes, tmpfsBytes, unread } = need;
  const short = roomProblem(processes, room);
  const inMemory = processes.files === 0 ? undefined : memoryFileSystemProblem(room);
  const with_ =
    short === undefined && roomProblem({ ...processes, bytes: processes.bytes + tmpfsBytes }, room);
  return {
    ...{ need, room },
    problem:
      short === undefined
        ? inMemory
        : `the images of what is protected now ${short}. After a panic the smallest would come back, as far as ` +
          `that goes, and the others would not: ${ROOM_REMEDY}`,
    tmpfsProblem: with_
      ? `with the files on tmpfs that are carried over, images ${with_}. Those that do not fit would be lost, ` +
        'the largest first: make room there, or set tmpfs.max-mebibytes'
      : undefined,
    rateProblem: rateProblemOf(need, minutes),
    unknown:
      unread === undefined
        ? undefined
        : `images may need more than is said: ${unread.count} of what is protected could not be looked at, ` +
          `the first: ${unread.first}`,
  };
}
