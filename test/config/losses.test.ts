import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, defaultConfig, parseConfig } from '../../src/config/config.ts';
import { allowedLosses, type Descendant } from '../../src/config/losses.ts';
import type { ProtectionRule } from '../../src/config/protection.ts';

const BREAK = parseConfig('[losses]\nconnections = "break"', 'x.toml');

function process(pid: number, comm: string, parentPid: number | undefined): Descendant {
  return { pid, comm, parentPid, exe: undefined, cgroup: undefined, startTicks: pid, owner: 0 };
}

const PROCESSES = [
  process(10, 'nginx', 1),
  process(11, 'worker', 10),
  process(12, 'helper', 11),
  process(20, 'redis', 1),
  process(30, 'mad', 31),
  process(31, 'mad', 30),
];
const NGINX: ProtectionRule = { kind: 'command', name: 'nginx', allowLoss: ['connections'] };
const REDIS: ProtectionRule = { kind: 'command', name: 'redis' };

test('nothing may be lost by default', () => {
  const allowed = allowedLosses(defaultConfig(), [REDIS], PROCESSES);
  for (const { pid } of PROCESSES) assert.equal(allowed(pid).size, 0, `${pid}`);
});

test('a rule allows it to what it names and to the descendants of that', () => {
  const allowed = allowedLosses(defaultConfig(), [NGINX, REDIS], PROCESSES);
  assert.deepEqual(
    [10, 11, 12, 20, 30, 99].map((pid) => allowed(pid).has('connections')),
    [true, true, true, false, false, false],
  );
});

test('the configuration allows it to all', () => {
  const allowed = allowedLosses(BREAK, [], PROCESSES);
  assert.ok([10, 20, 30, 99].every((pid) => allowed(pid).has('connections')));
});

test('keep is the other value, and there is no third', () => {
  const { losses } = parseConfig('[losses]\nconnections = "keep"', 'x.toml');
  assert.deepEqual(losses, defaultConfig().losses);
  assert.throws(
    () => parseConfig('[losses]\nconnections = "drop"', 'x.toml'),
    (error) =>
      error instanceof ConfigError &&
      error.message === 'x.toml:2:15: losses.connections: one of "keep", "break" is wanted, not "drop"',
  );
  assert.throws(() => parseConfig('[losses]\ndevices = "break"', 'x.toml'), /keys of losses are connections/);
});
