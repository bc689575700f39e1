import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { ProfileError } from '../../src/vmcore/errors.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { readProfile, type TakenProfile, writeProfile } from '../../src/vmcore/profile.ts';
import { parseProcKallsyms } from '../../src/vmcore/profile-symbols.ts';
import { dumpBytes, dumpPath, openFixture, releases, scratch } from './fixtures.ts';

const SYMBOLS = [
  '_stext',
  '_end',
  'init_task',
  'init_pid_ns',
  'page_offset_base',
  'vmemmap_base',
  '__per_cpu_offset',
  '__cpu_online_mask',
  'nr_cpu_ids',
];

/** /proc/kallsyms as far as these tests go, with a module's symbol at its end. */
function kallsymsText(release: (typeof releases)[number]): string {
  const kernel = openFixture(release);
  const lines = SYMBOLS.map((name) => `${kernel.symbol(name).toString(16).padStart(16, '0')} D ${name}`);
  return `${lines.join('\n')}\nffffffffc0000000 t init_task\t[fake]\n`;
}

function profileOf(release: (typeof releases)[number]): TakenProfile {
  const kernel = openFixture(release);
  return {
    release: kernel.release,
    buildId: kernel.vmcoreinfo.get('BUILD-ID') ?? '',
    vmcoreinfo: [...kernel.vmcoreinfo].map(([key, value]) => `${key}=${value}\n`).join(''),
    btf: kernel.layouts.btf.raw,
    symbols: parseProcKallsyms(Buffer.from(kallsymsText(release))),
  };
}

for (const release of releases) {
  describe(`a profile of ${release}`, () => {
    const path = scratch(`profile-${release}`);
    writeProfile(path, profileOf(release));

    it('opens the dump with its own symbols and types', () => {
      const kernel = openKernel(dumpPath(release), readProfile(path));
      assert.equal(kernel.symbol('init_task'), openFixture(release).symbol('init_task'));
      assert.equal(kernel.symbolMaybe('runqueues'), undefined, 'not in this profile');
      assert.deepEqual(kernel.symbolAt(kernel.symbol('init_task') + 8n), { name: 'init_task', offset: 8 });
      assert.deepEqual(listProcesses(kernel), listProcesses(openFixture(release)));
    });

    it('does without VMCOREINFO, BTF and kallsyms in the dump', () => {
      const bytes = dumpBytes(release);
      bytes.fill('X', bytes.indexOf('VMCOREINFO\0'), bytes.indexOf('OSRELEASE='));
      writeFileSync(scratch('bare'), bytes);
      assert.equal(listProcesses(openKernel(scratch('bare'), readProfile(path))).rows[0]?.pid, 1);
    });

    it('is refused if it is damaged, cut off, or something else', () => {
      const whole = readFileSync(path);
      for (const at of [0, 8, 12, 20, 44, 1000, whole.length - 1]) {
        const copy = Buffer.from(whole);
        copy[at] = (copy[at] ?? 0) ^ 0x40;
        writeFileSync(scratch('broken'), copy);
        assert.throws(() => readProfile(scratch('broken')), ProfileError, `byte ${at}`);
      }
      for (const length of [0, 7, 30, whole.length / 2, whole.length - 1]) {
        writeFileSync(scratch('broken'), whole.subarray(0, length));
        assert.throws(() => readProfile(scratch('broken')), ProfileError, `${length} bytes`);
      }
    });
  });
}

describe('a profile of another kernel', () => {
  it('is refused with both build ids', () => {
    const profile = profileOf('debian12');
    assert.throws(
      () => openKernel(dumpPath('debian13'), profile),
      (error: unknown) =>
        error instanceof ProfileError &&
        error.message.includes(profile.buildId) &&
        /6\.12/.test(error.message),
    );
  });

  it('is refused if it is of the same kernel, but of another boot', () => {
    const profile = profileOf('debian12');
    const moved = kallsymsText('debian12').replaceAll(
      /^ffffffff(.)/gm,
      (_, digit: string) => `ffffffff${(Number.parseInt(digit, 16) ^ 1).toString(16)}`,
    );
    assert.throws(
      () => openKernel(dumpPath('debian12'), { ...profile, symbols: parseProcKallsyms(Buffer.from(moved)) }),
      /another boot/,
    );
  });
});

it('a kernel that hides its addresses gives no profile', () => {
  const hidden = kallsymsText('debian12').replaceAll(/^[0-9a-f]{16}/gm, '0000000000000000');
  assert.throws(() => parseProcKallsyms(Buffer.from(hidden)), /kptr_restrict/);
});

it('symbols are in the order of their addresses; modules, and lines that are none, are left out', () => {
  const lines = [
    ...['0000000000001000 A per_cpu_offset', 'ffffffff81000010 T later', 'ffffffff81000000 T _text'],
    ...['ffffffffc0000000 t of_module\t[fake]', 'ffffffff81000000 t alias', 'ffffffff8100002 T short', ''],
    'ffffffff81000020 D last',
  ];
  const symbols = parseProcKallsyms(Buffer.from(lines.join('\n')));
  assert.equal(symbols.starts.length, 5);
  assert.equal(symbols.lookup('per_cpu_offset'), 0x1000n);
  assert.equal(symbols.lookup('last'), 0xffff_ffff_8100_0020n);
  for (const name of ['of_module', 'short']) assert.equal(symbols.lookup(name), undefined);
  assert.deepEqual(symbols.symbolAt(0xffff_ffff_8100_0018n), { name: 'later', offset: 8 });
  assert.deepEqual(symbols.symbolAt(0xffff_ffff_8100_0004n), { name: '_text', offset: 4 });
});
