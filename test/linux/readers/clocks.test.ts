import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { clockRepairs, timerProblems } from '../../../src/capture/timers.ts';
import { crashTime } from '../../../src/linux/readers/clock-witnesses.ts';
import { coarseness, readClocks } from '../../../src/linux/readers/clocks.ts';
import { CLOCK } from '../../../src/linux/timekeeping.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';

const SECOND = 1_000_000_000n;
const MILLISECOND = 1_000_000n;
/** The times of the kernel below: up for 1000 s, of which it slept 50 s besides. */
const MONOTONIC = 1000n * SECOND + 123n * MILLISECOND;
const REALTIME = 1_700_000_000n * SECOND;
const BOOTTIME = 50n * SECOND;
const TAI = 37n;
const SHIFT = 8n;

/** Writes a timekeeper of which all copies agree. */
function writeTimekeeper(kernel: MadeKernel, address: bigint): void {
  const base = 1000n * SECOND;
  const members: Readonly<Record<string, bigint>> = {
    'tkr_mono.shift': SHIFT,
    'tkr_mono.xtime_nsec': (MONOTONIC - base) << SHIFT,
    'tkr_mono.base': base,
    xtime_sec: REALTIME / SECOND + 1000n,
    'wall_to_monotonic.tv_sec': -REALTIME / SECOND,
    'wall_to_monotonic.tv_nsec': 0n,
    offs_real: REALTIME,
    offs_boot: BOOTTIME,
    offs_tai: REALTIME + TAI * SECOND,
    tai_offset: TAI,
    'monotonic_to_boot.tv_sec': BOOTTIME / SECOND,
  };
  for (const [path, value] of Object.entries(members)) kernel.set('timekeeper', address, path, value);
}

/** jiffies_64 at CONFIG_HZ=250. */
const ticks = (uptime: bigint): bigint => 2n ** 32n - 300n * 250n + (uptime * 250n) / SECOND;

for (const release of releases) {
  suite(`clocks of ${release}`, () => {
    /** A kernel of two CPUs whose clocks all agree. */
    const made = (): MadeKernel => {
      const kernel = new MadeKernel(release, 2);
      kernel.symbols.set('tk_core', kernel.allocate('timekeeper'));
      kernel.symbols.set('shadow_timekeeper', kernel.allocate('timekeeper'));
      writeTimekeeper(kernel, kernel.symbol('tk_core') + 8n);
      writeTimekeeper(kernel, kernel.symbol('shadow_timekeeper'));
      kernel.variable('tick_next_period', MONOTONIC + 4n * MILLISECOND);
      kernel.variable('jiffies_64', ticks(MONOTONIC));
      kernel.allocatePerCpu('runqueues', 'rq');
      kernel.allocatePerCpu('hrtimer_bases', 'hrtimer_cpu_base');
      for (const cpu of kernel.cpus) {
        // Not steered as the clock is: a little ahead.
        kernel.set('rq', kernel.perCpu('runqueues', cpu), 'clock', MONOTONIC + SECOND);
        const base = kernel.perCpu('hrtimer_bases', cpu);
        [0n, REALTIME, BOOTTIME, REALTIME + TAI * SECOND].forEach((offset, i) => {
          const clock = [CLOCK.monotonic, CLOCK.realtime, CLOCK.boottime, CLOCK.tai][i] ?? 0;
          kernel.set('hrtimer_cpu_base', base, `clock_base[${i}].clockid`, clock);
          kernel.set('hrtimer_cpu_base', base, `clock_base[${i}].offset`, offset);
        });
      }
      return kernel;
    };
    const damage = (kernel: MadeKernel, ...symbols: readonly string[]): MadeKernel => {
      for (const symbol of symbols) kernel.write(kernel.symbol(symbol), Buffer.alloc(256, 0xff));
      return kernel;
    };
    const exact = {
      monotonic: MONOTONIC,
      realtime: MONOTONIC + REALTIME,
      boottime: MONOTONIC + BOOTTIME,
      tai: MONOTONIC + REALTIME + TAI * SECOND,
    };

    test("are the timekeeper's where all agree", () => {
      assert.deepEqual(readClocks(made()), exact);
      assert.deepEqual(clockRepairs(readClocks(made())), []);
    });

    test('are those of the copy where a bit of the timekeeper was flipped, wherever', () => {
      const members = ['tkr_mono.base', 'xtime_sec', 'offs_real', 'offs_boot', 'offs_tai', 'tai_offset'];
      for (const path of members) {
        const kernel = made();
        const at = kernel.memberAddress('timekeeper', kernel.symbol('tk_core') + 8n, path);
        kernel.write(at, Buffer.from([kernel.memory.u8(at) ^ 0x10]));
        const { estimate, ...clocks } = readClocks(kernel);
        assert.deepEqual([path, clocks, estimate?.used], [path, exact, 'shadow_timekeeper']);
      }
    });

    test('come from what else has a time where the timekeeper and its copy are lost, and never go back', () => {
      const kernel = damage(made(), 'tk_core', 'shadow_timekeeper');
      const { estimate, ...clocks } = readClocks(kernel);
      assert.equal(estimate?.used, 'tick_next_period');
      assert.equal(coarseness(readClocks(kernel)), undefined);
      const ahead = clocks.monotonic - MONOTONIC;
      assert.ok(ahead >= 0n && ahead <= SECOND, `${ahead} ns`);
      assert.equal(clocks.realtime - clocks.monotonic, REALTIME);
      assert.equal(clocks.boottime - clocks.monotonic, BOOTTIME);
      assert.equal(clocks.tai - clocks.monotonic, REALTIME + TAI * SECOND);
      assert.deepEqual(clockRepairs(readClocks(kernel)), [
        { what: 'clocks', used: 'tick_next_period, to about 0.2 s', instead: 'tk_core' },
      ]);
    });

    test('that look whole and are far from all others are not believed', () => {
      const kernel = made();
      const tk = kernel.symbol('tk_core') + 8n;
      kernel.set('timekeeper', tk, 'tkr_mono.base', 2000n * SECOND);
      kernel.set('timekeeper', tk, 'xtime_sec', REALTIME / SECOND + 2000n);
      assert.deepEqual({ ...readClocks(kernel), estimate: undefined }, { ...exact, estimate: undefined });
    });

    test('that are known badly keep those from coming back who wait for a time', () => {
      const kernel = damage(made(), 'tk_core', 'shadow_timekeeper', 'tick_next_period');
      const clocks = readClocks(kernel);
      assert.equal(clocks.estimate?.used, 'jiffies_64');
      assert.ok(clocks.monotonic >= MONOTONIC);
      assert.match(coarseness(clocks) ?? '', /known to about 10 s only/);
      const none = { intervalMicroseconds: 0, remainingMicroseconds: 0 };
      const timers = (remainingMicroseconds: number) =>
        timerProblems(clocks, [], {
          intervalTimers: { real: { ...none, remainingMicroseconds }, virtual: none, prof: none },
          posixTimers: [],
        });
      assert.deepEqual(timers(0), []);
      assert.deepEqual(timers(1), ['has a timer that is set, and the clocks are known to about 10 s only']);
    });

    test('by jiffies are those of the frequency that fits the other times best', () => {
      const kernel = damage(made(), 'tk_core', 'shadow_timekeeper', 'tick_next_period');
      // 1000 Hz, 320 s; at 250 Hz it would be 380 s.
      kernel.variable('jiffies_64', 2n ** 32n + 20_000n);
      for (const cpu of kernel.cpus)
        kernel.set('rq', kernel.perCpu('runqueues', cpu), 'clock', 321n * SECOND);
      assert.equal(readClocks(kernel).monotonic, 325n * SECOND);
    });

    test('are refused where one time is left that nothing confirms, or no distance between the clocks', () => {
      const alone = damage(made(), 'tk_core', 'shadow_timekeeper', 'tick_next_period', 'jiffies_64');
      assert.throws(() => readClocks(alone), /no clock is confirmed by another; timekeeper at 0x/);
      // What is lost and reads as zeros confirms nothing.
      const zeros = damage(made(), 'tk_core', 'shadow_timekeeper', 'jiffies_64');
      zeros.write(zeros.symbol('tick_next_period'), Buffer.alloc(8));
      for (const cpu of zeros.cpus) {
        zeros.write(zeros.perCpu('runqueues', cpu), Buffer.alloc(zeros.sizeOf('rq')));
      }
      assert.throws(() => readClocks(zeros), /no clock is confirmed by another; timekeeper at 0x/);
      const apart = damage(made(), 'tk_core', 'shadow_timekeeper');
      for (const cpu of apart.cpus) apart.write(apart.perCpu('hrtimer_bases', cpu), Buffer.alloc(2048));
      assert.throws(() => readClocks(apart), /nothing tells how far the clocks were apart/);
    });

    test('keep their distance by the timers of most CPUs', () => {
      const kernel = damage(made(), 'tk_core', 'shadow_timekeeper');
      kernel.write(kernel.perCpu('hrtimer_bases', 1), Buffer.alloc(2048));
      const { monotonic, boottime } = readClocks(kernel);
      assert.equal(boottime - monotonic, BOOTTIME);
    });
  });
}

test('CRASHTIME is a number of seconds, or is not there', () => {
  const kernel = new MadeKernel('debian13');
  const read = (text: string) => {
    kernel.vmcoreinfo.set('CRASHTIME', text);
    return crashTime(kernel);
  };
  assert.equal(read('1700000000'), 1_700_000_000n * SECOND);
  for (const text of ['', '0', '-5', '17x', '99999999999999999999'])
    assert.equal(read(text), undefined, text);
});
