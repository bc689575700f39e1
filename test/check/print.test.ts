import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inBrief } from '../../src/check/brief.ts';
import type { Conclusion } from '../../src/check/conclude.ts';
import { printCheck } from '../../src/check/print.ts';
import { roomHere } from '../../src/check/this-machine.ts';
import { exitStatus, requireOneTarget, toJson } from '../../src/cli/check.ts';
import { roomOf } from '../../src/report/images-room.ts';
import { styleFor } from '../../src/report/print.ts';

const ROOM = { directory: '/images', bytes: 812 * 2 ** 20, files: undefined, type: 0xef53 };

function conclusion(found: Partial<Conclusion> & Pick<Conclusion, 'pid' | 'outcome'>): Conclusion {
  return { comm: 'web', reasons: [], moments: [], notes: [], losses: [], inDoubt: [], against: [], ...found };
}

const BACK = conclusion({
  ...{ pid: 812, outcome: 'comes back', notes: ['2 memory areas have lost their NUMA'] },
  images: { group: 812, bytes: 12 * 2 ** 20 },
});
const REFUSED = conclusion({
  pid: 815,
  comm: 'worker\u001b[2J',
  outcome: 'refused',
  reasons: ['uses io_uring', 'thread 815 has a seccomp filter', 'thread 816 has a seccomp filter'],
});
const BUSY = conclusion({
  pid: 9,
  outcome: 'depends',
  moments: ['thread 9 is on CPU 1: its registers are there, not in memory'],
});

test('a check shows each process with all its causes, and once what to do about each of them', () => {
  const lines = printCheck([BACK, REFUSED, BUSY], styleFor(false), ROOM).split('\n');
  assert.deepEqual(lines.slice(0, 9), [
    '1 of 3 processes would come back if the kernel died now',
    'images: 12 MiB needed, 812 MiB free in /images',
    '      9  web              depends',
    '           at this moment: thread 9 is on CPU 1: its registers are there, not in memory',
    '    812  web              comes back',
    '           note: 2 memory areas have lost their NUMA',
    '    815  worker\\x1b[2J    refused',
    '           uses io_uring',
    '           thread 815 has a seccomp filter; and 1 more like it (816)',
  ]);
  assert.equal(lines.at(10), 'What to do');
  assert.match(
    lines.at(11) ?? '',
    /^ {2}1 process: a matter of the moment at which it was looked at: check again/,
  );
  assert.match(lines.at(12) ?? '', /^ {2}1 process: let the program do without io_uring/);
  assert.equal(lines.length, 14);
});

const ALONE = conclusion({
  ...{ pid: 816, outcome: 'for its procedure' },
  losses: [{ kind: 'threads', of: 'thread 817', what: 'thread 817 (web) is gone' }],
  against: ['uses io_uring'],
});

test('who comes back for its procedure alone does not go on, and is told from both others', () => {
  const lines = printCheck([BACK, ALONE], styleFor(false), ROOM).split('\n');
  assert.equal(lines[0], '1 of 2 processes would come back if the kernel died now');
  assert.deepEqual(lines.slice(4, 7), [
    '    816  web              comes back for its procedure alone',
    '           would be refused: uses io_uring',
    '           lost: thread 817 (web) is gone',
  ]);
  assert.match(lines.at(-1) ?? '', /^ {2}1 process: let the program do without io_uring/);
  assert.equal(
    inBrief([ALONE])[0],
    '  web (816) would come back for its crash procedure alone: uses io_uring',
  );
  const json: { images: unknown; processes: { causes: { text: string; advice?: string }[] }[] } = JSON.parse(
    toJson([ALONE, BACK, { ...BACK, pid: 813 }], { isArmed: true, hasStageZero: true }, [], ROOM, '/images'),
  );
  const images = { neededBytes: 12 * 2 ** 20, freeBytes: 812 * 2 ** 20, directory: '/images' };
  assert.deepEqual(json.images, images);
  const [cause] = json.processes[0]?.causes ?? [];
  assert.equal(cause?.text, 'uses io_uring');
  assert.match(cause?.advice ?? '', /^let the program do without io_uring/);
  assert.equal(exitStatus([BACK, ALONE]), 3);
});

test('a file system that does not say what is free ends no check', () => {
  const failed = roomHere('/images', () => {
    throw new Error('ESTALE: stale file handle');
  });
  assert.equal(failed.room, undefined);
  assert.match(failed.unknownRoom ?? '', /^whether there is room .* cannot be told: ESTALE/);
  const json = JSON.parse(toJson([BACK], { isArmed: true, hasStageZero: true }, [], failed.room, '/images'));
  assert.deepEqual([json.images.freeBytes, json.images.directory], [null, '/images']);
  assert.equal(roomHere('/', () => roomOf(ROOM)).room?.bytes, ROOM.bytes);
});

test('in brief only those are named that would not come back, each with one cause', () => {
  assert.deepEqual(inBrief([BACK]), []);
  assert.deepEqual(inBrief([BACK, REFUSED, BUSY]), [
    '  worker\\x1b[2J (815) would not come back: uses io_uring (and 1 more)',
    '  web (9) may not come back: thread 9 is on CPU 1: its registers are there, not in memory',
    '  otherworld check tells every cause, and what to do about it',
  ]);
  const many = Array.from({ length: 7 }, (_, pid) => ({ ...REFUSED, pid }));
  assert.deepEqual(inBrief(many).slice(5), [
    '  and 2 processes more',
    '  otherworld check tells every cause, and what to do about it',
  ]);
});

test('who comes back with losses is told so, with what it loses, also in brief', () => {
  const losses = ['7', '8'].map((port) => ({
    kind: 'connections' as const,
    of: port,
    what: `the connection to 10.0.2.2:${port} is reset: it is one with urgent data (MSG_OOB)`,
  }));
  const lossy = conclusion({ pid: 7, outcome: 'with losses', losses });
  assert.deepEqual(printCheck([lossy], styleFor(false), ROOM).split('\n'), [
    '1 of 1 process would come back if the kernel died now',
    'images: 0 MiB needed, 812 MiB free in /images',
    '      7  web              comes back with losses',
    '           lost: the connection to 10.0.2.2:7 is reset: it is one with urgent data (MSG_OOB); and 1 more like it (10.0.2.2:8)',
  ]);
  assert.match(
    inBrief([lossy]).join('\n'),
    /^ {2}web \(7\) would come back with losses: the connection to 10/,
  );
  assert.equal(exitStatus([lossy]), 0);
  const each = conclusion({
    pid: 7,
    outcome: 'with losses',
    moments: losses.map(({ what }) => `lost: ${what}`),
  });
  assert.match(
    printCheck([each], styleFor(false), ROOM),
    /^ {11}at this moment: lost: the connection to 10\.0\.2\.2:7 /m,
  );
  assert.match(inBrief([each]).join('\n'), /would come back with losses: lost: the connection to 10/);
});

test('the exit status tells who comes back, who is refused, and who depends on the moment', () => {
  assert.equal(exitStatus([BACK]), 0);
  assert.equal(exitStatus([BACK, BUSY]), 4);
  assert.equal(exitStatus([BUSY, REFUSED]), 3);
  assert.equal(exitStatus([conclusion({ pid: 1, outcome: 'ending' })]), 4);
});

test('one thing is checked at a time', () => {
  requireOneTarget(undefined, { pid: [] });
  requireOneTarget('web', { pid: [], user: 'alice' });
  assert.throws(() => requireOneTarget('web', { pid: [5] }), /one at a time: UNIT, --pid/);
  assert.throws(() => requireOneTarget(undefined, { pid: [5], all: true }), /one at a time: --pid, --all/);
  assert.throws(() => requireOneTarget('', { pid: [] }), /the name of the unit is empty/);
  assert.throws(() => requireOneTarget(undefined, { pid: [], user: 'alice' }), /--user goes with a unit/);
});
