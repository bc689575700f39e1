import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { isInstalled, serviceOf } from '../../../src/config/service-units.ts';
import type { Candidate } from '../../../src/crash-world/processes/select.ts';
import { planAdoptions, scopeOf } from '../../../src/crash-world/systemd/adoption.ts';

function candidate(pid: number, cgroup: string, more: Partial<Candidate> = {}): Candidate {
  return {
    pid,
    parentPid: 1,
    comm: `p${pid}`,
    exe: undefined,
    uid: 0,
    owner: 0,
    cgroup,
    startTicks: pid,
    ...more,
  };
}

const service = '/system.slice/web.service';
const installed = (): boolean => true;

function group(members: number[], pids = members) {
  return { members, pids };
}

test('a service is found anywhere in the path, but not in a user manager', () => {
  assert.equal(serviceOf('/system.slice/web.service'), 'web.service');
  assert.equal(serviceOf('/system.slice/system-web.slice/web@1.service/sub'), 'web@1.service');
  assert.equal(serviceOf('/user.slice/user-0.slice/user@0.service/app.slice/x.service'), undefined);
  assert.equal(serviceOf('/user.slice/user-0.slice/session-1.scope'), undefined);
  assert.equal(serviceOf('/'), undefined);
});

test("a container's own units are not the system's", () => {
  assert.equal(serviceOf('/system.slice/docker-1.scope/system.slice/redis.service'), undefined);
  assert.equal(
    serviceOf('/system.slice/nspawn@1.service/payload/system.slice/x.service'),
    'nspawn@1.service',
  );
});

test('a service takes up its processes, the one that systemd started as main process', () => {
  const candidates = [
    candidate(30, service, { parentPid: 20 }),
    candidate(20, service),
    candidate(40, `${service}/sub/sub`),
  ];
  const plan = planAdoptions([group([20, 30, 40])], candidates, installed);
  assert.equal(plan.length, 1);
  assert.equal(plan[0]?.mainPid, 20);
  assert.deepEqual(plan[0]?.processes[1], { pid: 20, below: '' });
  assert.deepEqual(plan[0]?.processes[2], { pid: 40, below: '/sub/sub' });
});

test('a service of which a process is missing starts afresh, and takes nothing up', () => {
  const candidates = [candidate(20, service), candidate(21, service)];
  assert.deepEqual(planAdoptions([group([21])], candidates, installed), []);
});

test('a short-lived child that has ended since does not keep a service from taking up the rest', () => {
  const candidates = [candidate(20, service), candidate(21, service, { parentPid: 20 })];
  const plan = planAdoptions([group([20, 21], [20])], candidates, installed);
  assert.deepEqual(plan[0]?.processes, [{ pid: 20, below: '' }]);
  const rest = planAdoptions([group([20, 21], [21])], candidates, installed);
  assert.deepEqual(rest, [], 'without its main process there is no service');
});

test('a transient unit is gone with its kernel: it takes nothing up', () => {
  assert.deepEqual(
    planAdoptions([group([20])], [candidate(20, service)], () => false),
    [],
  );
});

test('each group is restored in a scope of its own, outside what systemd ends when a start fails', () => {
  assert.deepEqual(scopeOf(5), {
    unit: 'otherworld-5.scope',
    cgroup: '/otherworld.slice/otherworld-5.scope',
  });
  assert.equal(serviceOf(scopeOf(5).cgroup), undefined);
});

const directory = mkdtempSync(join(tmpdir(), 'otherworld-units-'));
after(() => rmSync(directory, { recursive: true }));

test('an instance is installed if its template is', () => {
  writeFileSync(join(directory, 'web@.service'), '');
  assert.ok(isInstalled('web@1.service', [directory]));
  assert.ok(!isInstalled('web.service', [directory]));
});
