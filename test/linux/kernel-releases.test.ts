import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, suite, test } from 'node:test';
import { isUnchecked } from '../../src/arm/arm.ts';
import { kernelSeries } from '../../src/arm/doctor.ts';
import {
  checkedConstants,
  checkedSeries,
  seriesOf,
  uncheckedConstants,
  uncheckedRelease,
} from '../../src/linux/kernel-releases.ts';
import { dumpPath, openFixture, releases, scratch } from '../vmcore/fixtures.ts';

suite('constants that are not in BTF', () => {
  test('are checked for the kernels of both Debian releases, whatever their update', () => {
    assert.deepEqual(checkedSeries(), ['6.1', '6.12']);
    for (const release of releases) {
      const kernel = openFixture(release);
      assert.deepEqual(uncheckedConstants(kernel.release), []);
      assert.equal(uncheckedRelease(kernel.release), undefined);
    }
  });

  test('are unchecked for every other series, and for a release that is no version', () => {
    assert.deepEqual(
      ['6.12-rc1', '6.120.1', '6.1', '16.12.3', '6.13.2+deb14-amd64', 'vendor'].map(seriesOf),
      ['6.12', '6.120', '6.1', '16.12', '6.13', undefined],
    );
    for (const release of ['6.11.9', '6.13.2+deb14-amd64', '5.10.0-35-amd64', '6.120.1', 'vendor']) {
      assert.equal(uncheckedConstants(release).length, checkedConstants.length, release);
    }
    assert.match(
      uncheckedRelease('6.13.2+deb14-amd64') ?? '',
      /^kernel 6\.13\.2\+deb14-amd64 is of a series that was not checked \(6\.1 and 6\.12 were\): /,
    );
  });

  test('of a series that was not checked, doctor says what to do', () => {
    assert.equal(kernelSeries('6.12.107+deb13-amd64').state, 'good');
    const { state, found, todo } = kernelSeries('6.8.0-40-generic');
    assert.equal(state, 'missing');
    assert.match(found, /6\.8\.0-40-generic is of a series that was not checked/);
    assert.match(todo ?? '', /otherworld arm --unchecked/);
  });

  test('a kernel of a series that was not checked is armed with --unchecked only', () => {
    assert.equal(isUnchecked('6.1.0-53-cloud-amd64', false), false);
    assert.equal(isUnchecked('6.6.13', true), true);
    assert.throws(() => isUnchecked('6.6.13', false), /kernel 6\.6\.13 .* or arm with --unchecked$/);
  });
});

suite('a dump of a kernel that was not checked', () => {
  /** The dump with another release wherever the kernel says its own, of the same length. */
  const renamed = scratch('unchecked');
  before(() => {
    const { release } = openFixture('debian13');
    const other = release.replace('6.12.', '6.13.');
    const bytes = readFileSync(dumpPath('debian13'));
    for (let at = bytes.indexOf(release); at >= 0; at = bytes.indexOf(release, at))
      at += bytes.write(other, at);
    writeFileSync(renamed, bytes);
  });
  const run = (...args: string[]) => {
    const program = join(import.meta.dirname, '../../src/cli/main.ts');
    return spawnSync(process.execPath, [program, ...args], { encoding: 'utf8' });
  };

  test('is looked into with a warning on standard error', () => {
    const { status, stderr, stdout } = run('inspect', renamed, 'ps');
    assert.equal(status, 0, stderr);
    assert.match(stdout, /guest-program/);
    assert.match(stderr, /is of a series that was not checked/);
  });

  test('is extracted from with --unchecked only', () => {
    const out = scratch('images');
    const refused = run('extract', renamed, '--pid', '1', '--out', out);
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /is of a series that was not checked .*; --unchecked extracts all the same/);
    const allowed = run('extract', renamed, '--pid', '1', '--out', out, '--unchecked');
    // The little dump does not hold all that a capture wants: the process is refused, but was tried.
    assert.equal(allowed.status, 3, allowed.stderr);
    assert.match(allowed.stderr, /is of a series that was not checked/);
  });
});
