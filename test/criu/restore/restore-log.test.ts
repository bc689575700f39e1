import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { logErrors, logLinesAbout } from '../../../src/criu/restore/restore-log.ts';

describe('the log of criu', () => {
  it('gives its errors without times and places, each once', () => {
    const log = [
      '(00.000100) Version: 4.1.1 (gitid 0)',
      '(00.012345)    343: Error (criu/files-reg.c:2117): File usr/bin/x has bad size 1 (expect 2)',
      '(00.012399)    343: Error (criu/files-reg.c:2117): File usr/bin/x has bad size 1 (expect 2)',
      '(00.020000) Warn  (criu/cr-restore.c:1): nothing',
      '(00.200000) Error (criu/cr-restore.c:2537): Restoring FAILED.',
      '',
    ].join('\n');
    assert.deepEqual(logErrors(log), ['File usr/bin/x has bad size 1 (expect 2)', 'Restoring FAILED.']);
  });

  it('gives what the restorer says in the restored process', () => {
    const log = [
      '(00.031532) pie: 427: Remap rt-vdso 0x7ffd -> 0x7ffe',
      "(00.031540) pie: 427: Error (criu/pie/parasite-vdso.c:275): vdso: Can't find vDSO area in image",
      '(00.040000) Error (criu/cr-restore.c:2537): Restoring FAILED.',
    ].join('\n');
    assert.deepEqual(logErrors(log), ["vdso: Can't find vDSO area in image", 'Restoring FAILED.']);
  });

  it('is read without times, with numbers of seven digits, and after the hundredth second', () => {
    const log = [
      'pie: 4194303: Error (criu/pie/restorer.c:1): a',
      '(00.000000)4194303: Error (criu/sk-unix.c:2284): FATAL: Peer 7 unresolved for 8',
      '(100.123456 Error (criu/x.c:1): of 3.17',
      '(100.12345)     44: Error (criu/x.c:2): of 4.1',
      '(00.1)     44: Error (criu/x.c:3): BUG at criu/x.c:3',
    ].join('\n');
    assert.deepEqual(logErrors(log), [
      'a',
      'FATAL: Peer 7 unresolved for 8',
      'of 3.17',
      'of 4.1',
      'BUG at criu/x.c:3',
    ]);
  });

  it('has long lines of the restorer in pieces', () => {
    const log = [
      '(00.031540) pie: 427: Error (criu/pie/restorer.c:9): begun >',
      '(00.031540) pie: 427: and gone on >',
      '(00.031540) pie: 427: with to the end',
      '(00.031541) pie: 427: another',
    ].join('\n');
    assert.deepEqual(logErrors(log), ['begun and gone on with to the end']);
  });

  it('gives of one process what names it, with the errors and warnings of all', () => {
    const log = [
      '(00.000100) Forking task with 343 pid (flags 0x0)',
      '(00.000110) Forking task with 3431 pid (flags 0x0)',
      '(00.000120)    343: Restoring fd 3 (state -> prepare)',
      '(00.000130)    344: opens /proc/343/maps, 0x343 and 343.5',
      '(00.000140)    344: Warn  (criu/x.c:1): odd',
      '(00.000150) pie: 344: Error (criu/x.c:2): bad',
    ];
    const { lines, leftOut } = logLinesAbout(log.join('\n'), 343);
    assert.deepEqual(lines, [log[0], log[4], log[5]]);
    assert.equal(leftOut, 0);
  });

  it('gives no more of it than a page holds, and errors however often the process is named', () => {
    const named = Array.from({ length: 40 }, (_, i) => `(00.0001${i}) pid 343 again`);
    const error = '(00.000150) Error (criu/x.c:2): bad';
    const { lines, leftOut } = logLinesAbout([...named, error].join('\n'), 343);
    assert.deepEqual([lines.length, lines.at(-1), leftOut], [11, error, 30]);
  });
});
