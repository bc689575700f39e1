import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { isInstalled, planAdoptions, serviceOf } from '../../src/crash-world/adoption.ts';
import type { Candidate } from '../../src/crash-world/select.ts';

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
const session = '/user.slice/user-0.slice/session-1.scope';
const installed = (): boolean => true;

function group(id: number, members: number[], pids = members) {
  return { group: id, members, pids };
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
    candidate(40, `${service}/sub`),
  ];
  const plan = planAdoptions([group(20, [20, 30, 40])], candidates, installed);
  assert.equal(plan.length, 1);
  assert.ok(plan[0]?.kind === 'unit');
  assert.equal(plan[0].mainPid, 20);
  assert.deepEqual(plan[0].processes[2], { pid: 40, cgroup: `${service}/sub` });
});

test('a service of which a process is missing starts afresh; what is there goes to a scope', () => {
  const candidates = [candidate(20, service), candidate(21, service)];
  const plan = planAdoptions([group(21, [21])], candidates, installed);
  assert.deepEqual(plan, [
    {
      kind: 'scope',
      unit: 'otherworld-21.scope',
      processes: [{ pid: 21, cgroup: '/otherworld.slice/otherworld-21.scope' }],
    },
  ]);
});

test('a short-lived child that has ended since does not keep a service from taking up the rest', () => {
  const candidates = [candidate(20, service), candidate(21, service, { parentPid: 20 })];
  const plan = planAdoptions([group(20, [20, 21], [20])], candidates, installed);
  assert.ok(plan[0]?.kind === 'unit');
  assert.deepEqual(plan[0].processes, [{ pid: 20, cgroup: service }]);
  const [rest] = planAdoptions([group(20, [20, 21], [21])], candidates, installed);
  assert.equal(rest?.kind, 'scope', 'without its main process there is no service');
});

test('a transient unit is gone with its kernel: its processes go to a scope', () => {
  const plan = planAdoptions([group(20, [20])], [candidate(20, service)], () => false);
  assert.equal(plan[0]?.kind, 'scope');
});

test('each group outside services has a scope of its own', () => {
  const candidates = [candidate(5, session), candidate(6, session), candidate(7, service)];
  const restored = [group(5, [5]), group(6, [6])];
  const units = planAdoptions(restored, candidates, installed).map(({ unit }) => unit);
  assert.deepEqual(units, ['otherworld-5.scope', 'otherworld-6.scope']);
});

const directory = mkdtempSync(join(tmpdir(), 'otherworld-units-'));
after(() => rmSync(directory, { recursive: true }));

test('an instance is installed if its template is', () => {
  writeFileSync(join(directory, 'web@.service'), '');
  assert.ok(isInstalled('web@1.service', [directory]));
  assert.ok(!isInstalled('web.service', [directory]));
});
