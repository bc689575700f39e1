import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { cgroupOf, ifThere, parseStat, processNumbers, processStat } from '../../src/system/proc.ts';

/** The fields from the parent's number to the start time. */
const REST = `7 ${Array.from({ length: 17 }, () => '0').join(' ')} 4711 0 0`;

suite('what /proc says of a process', () => {
  test('is found behind a name of blanks and brackets', () => {
    const stat = parseStat(`12 (a) b (c)) S ${REST}`);
    assert.deepEqual(stat, { comm: 'a) b (c)', state: 'S', isZombie: false, parent: 7, startTicks: 4711 });
    assert.equal(parseStat(`12 (x) Z ${REST}`).isZombie, true);
  });

  test('is told of this process', () => {
    const stat = processStat(process.pid);
    assert.equal(stat?.parent, process.ppid);
    assert.equal(stat.isZombie, false);
    assert.ok(stat.startTicks > 0 && processNumbers().includes(process.pid));
    assert.equal(cgroupOf('self'), cgroupOf(process.pid));
  });

  test('is nothing where there is no process, or it ends meanwhile', () => {
    assert.equal(processStat(0), undefined);
    assert.equal(cgroupOf(0), undefined);
    const failing = (code: string) => () => ifThere(() => raise(code));
    assert.equal(failing('ESRCH')(), undefined);
    assert.throws(failing('EACCES'), { code: 'EACCES' });
  });
});

function raise(code: string): never {
  throw Object.assign(new Error(code), { code });
}
