import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, suite, test } from 'node:test';
import { setAside } from '../../src/arm/arm.ts';
import type { CrashImage, CrashKernel } from '../../src/arm/crash-image.ts';
import {
  type Loaded,
  type Loaders,
  loadCrashKernel,
  planCrashKernel,
  unloadCrashKernel,
} from '../../src/arm/kexec.ts';
import { setPanicSysctls } from '../../src/arm/panic-sysctls.ts';
import { readArmed } from '../../src/arm/state.ts';
import { defaultConfig } from '../../src/config/config.ts';
import type { Armed } from '../../src/config/manifest.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-kexec-'));
after(() => rmSync(directory, { recursive: true }));

const crashKernel: CrashKernel = {
  image: '/nonexistent/vmlinuz',
  initramfs: '/nonexistent/initramfs',
  commandLine: 'quiet',
  bootProcessor: 'auto',
};
const image: CrashImage = {
  image: { entry: 0x6d00_0000, segments: [], flags: 1 },
  lacking: { bootProcessor: 'what the firmware makes of it is not known' },
  apicIds: [0, 1],
  stageZeroBytes: 4096,
};

/** The error of a call that is not made. */
type Refusal = { readonly load?: string; readonly loadFile?: string };

/** The two calls, of a kernel that refuses some; it drops what is loaded at one that comes so far. */
function fakeKernel(refusal: Refusal, { isLoaded = true, dropsAt = [] as (keyof Refusal)[] } = {}) {
  const calls: string[] = [];
  let loaded = isLoaded;
  const call = (name: keyof Refusal): void => {
    calls.push(name);
    const message = refusal[name];
    if (message !== undefined && !dropsAt.includes(name)) throw new Error(message);
    loaded = message === undefined;
    if (message !== undefined) throw new Error(message);
  };
  const loaders: Loaders = {
    load: () => call('load'),
    loadFile: () => call('loadFile'),
    isLoaded: () => loaded,
  };
  return { calls, loaders };
}

suite('planning a crash kernel', () => {
  const failing = (error: Error) =>
    planCrashKernel(crashKernel, () => {
      throw error;
    }).image;

  test('makes of every failure a reason why there is no stage zero', () => {
    assert.equal(failing(new RangeError('out of range')), 'out of range');
    assert.equal(failing(new Error('ENOENT: no such file')), 'ENOENT: no such file');
    assert.equal(planCrashKernel(crashKernel, () => image).image, image);
  });

  test('does not hide that the program is wrong', () => {
    assert.throws(() => failing(new TypeError('x is undefined')), TypeError);
  });
});

suite('loading a crash kernel', () => {
  const config = defaultConfig();
  const [path, sysctls] = [join(directory, 'armed.json'), join(directory, 'sysctls')];
  const panicOnOops = (): string => readFileSync(join(sysctls, 'panic_on_oops'), 'utf8');
  let earlier: Armed;

  beforeEach(() => {
    mkdirSync(sysctls, { recursive: true });
    for (const name of ['panic_on_oops', 'softlockup_panic']) writeFileSync(join(sysctls, name), '0');
    const manifest: Armed['manifest'] = {
      ...{ version: 1, release: '6.12', unchecked: false, bootId: 'a', armedAt: 'b', reservedBytes: 1 },
      ...{ ranges: [], config, rules: [] },
    };
    earlier = {
      ...{ manifest, commandLine: 'quiet', initramfsBytes: 1, neededBytes: 1, lacking: {} },
      ...{ sysctlsBefore: setPanicSysctls(config, sysctls), mark: { text: 'otherworld-1' } },
    };
    writeFileSync(path, JSON.stringify(earlier));
  });

  /** Loads it where an earlier one of ours is loaded. */
  const load = (planned: CrashImage | string, loaders: Loaders): Loaded =>
    loadCrashKernel({ crashKernel, image: planned }, () => setAside(earlier, { path, sysctls }), loaders);

  const assertAsBefore = (): void => {
    assert.equal(panicOnOops(), '1');
    assert.deepEqual(readArmed(path), earlier);
  };
  const assertForgotten = (): void => {
    assert.equal(panicOnOops(), '0');
    assert.equal(existsSync(path), false);
  };

  test('takes the call that takes stage zero with it', () => {
    const { calls, loaders } = fakeKernel({});
    assert.deepEqual(load(image, loaders), {
      stageZeroAddress: 0x6d00_0000,
      lacking: image.lacking,
      apicIds: [0, 1],
    });
    assert.deepEqual(calls, ['load']);
    assertForgotten();
  });

  test('takes the other one if that is refused, with the reason', () => {
    const { calls, loaders } = fakeKernel({ load: 'EPERM' });
    assert.deepEqual(load(image, loaders), { lacking: { stageZero: 'EPERM' } });
    assert.deepEqual(calls, ['load', 'loadFile']);
  });

  test('takes the other one alone if there can be no stage zero', () => {
    const { calls, loaders } = fakeKernel({});
    assert.deepEqual(load('the processor has no XSAVE', loaders), {
      lacking: { stageZero: 'the processor has no XSAVE' },
    });
    assert.deepEqual(calls, ['loadFile']);
  });

  test('leaves everything as it was if the kernel has kept the earlier one', () => {
    const { loaders } = fakeKernel({ load: 'EPERM', loadFile: 'kexec is not installed' });
    assert.throws(() => load(image, loaders), {
      name: 'ArmError',
      message:
        'the crash kernel cannot be loaded, the one that was loaded before stays\n  EPERM\n  kexec is not installed',
    });
    assertAsBefore();
  });

  test('does not set again what somebody has set since', () => {
    writeFileSync(join(sysctls, 'softlockup_panic'), '7');
    const { loaders } = fakeKernel({ load: 'EPERM', loadFile: 'EPERM' });
    assert.throws(() => load(image, loaders));
    assertAsBefore();
    assert.equal(readFileSync(join(sysctls, 'softlockup_panic'), 'utf8'), '7');
  });

  for (const dropsAt of ['load', 'loadFile'] as const)
    test(`says that nothing is loaded now if ${dropsAt} has dropped the earlier one`, () => {
      const { loaders } = fakeKernel({ load: 'ENOMEM', loadFile: 'EPERM' }, { dropsAt: [dropsAt] });
      assert.throws(() => load(image, loaders), {
        name: 'ArmError',
        message:
          'the crash kernel cannot be loaded, none is loaded now: the system is not armed\n  ENOMEM\n  EPERM',
      });
      assertForgotten();
    });

  test('says so too if the kernel takes it and does not have it', () => {
    const loaders: Loaders = { load: () => undefined, loadFile: () => undefined, isLoaded: () => false };
    assert.throws(() => load(image, loaders), { name: 'ArmError', message: /none is loaded now/ });
    assertForgotten();
  });
});

suite('unloading a crash kernel', () => {
  const refuse = (message: string) => (): void => {
    throw new Error(message);
  };

  test('takes the other call only if the first is not allowed', () => {
    unloadCrashKernel({ unload: () => undefined, unloadFile: refuse('not to be called') });
    let unloaded = false;
    unloadCrashKernel({
      unload: refuse('EPERM'),
      unloadFile: () => {
        unloaded = true;
      },
    });
    assert.ok(unloaded);
  });

  test('says what was said against either', () => {
    assert.throws(() => unloadCrashKernel({ unload: refuse('EPERM'), unloadFile: refuse('no kexec') }), {
      name: 'ArmError',
      message: 'the crash kernel cannot be unloaded\n  EPERM\n  no kexec',
    });
  });
});
