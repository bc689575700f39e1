import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { outsideUnit, whoStaysOutside, whyNot } from '../../../src/crash-world/systemd/adopt.ts';
import {
  helperSays,
  removeDropIn,
  serviceType,
  writeDropIn,
} from '../../../src/crash-world/systemd/units.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-units-'));
after(() => rmSync(directory, { recursive: true }));
const [units, helpers] = [join(directory, 'units'), join(directory, 'helpers')];
const adoption = {
  unit: 'web@a\\x2db.service',
  mainPid: 20,
  processes: [
    { pid: 19, below: '/sub' },
    { pid: 20, below: '' },
  ],
};

function dropIn(): string {
  writeDropIn(adoption, units, helpers);
  const [name = ''] = readdirSync(join(units, `${adoption.unit}.d`));
  return readFileSync(join(units, `${adoption.unit}.d`, name), 'utf8');
}

test('the drop-in of the boot has the last word, over that of systemctl edit as well', () => {
  dropIn();
  const [name = ''] = readdirSync(join(units, `${adoption.unit}.d`));
  assert.deepEqual(['override.conf', name].toSorted().at(-1), name);
  removeDropIn(adoption.unit, units);
  assert.deepEqual(readdirSync(units), []);
});

test('what may fail before the helper runs, and what hurts when a start fails, is left out for the boot', () => {
  const lines = dropIn().split('\n');
  const resets =
    'ConditionPathExists AssertPathExists ExecCondition ExecStartPre ExecStartPost ExecStop ExecStopPost PIDFile ' +
    'CPUAffinity EnvironmentFile LoadCredential RootDirectory WorkingDirectory';
  for (const name of resets.split(' ')) assert.ok(lines.includes(`${name}=`), name);
  for (const line of ['Restart=no', 'FailureAction=none', 'RuntimeDirectoryPreserve=yes', 'Type=notify']) {
    assert.ok(lines.includes(line), line);
  }
});

test('the helper is told by a file, whatever the name of the unit is, with the main process first', () => {
  assert.match(dropIn(), /^ExecStart=\+\/bin\/sh \S+ %n$/m);
  assert.equal(readFileSync(join(helpers, adoption.unit), 'utf8'), '20 \n19 /sub\n');
});

test('a process is moved into the cgroup of the unit only when systemd calls that active', () => {
  dropIn();
  const script = readFileSync(join(helpers, 'adopt.sh'), 'utf8');
  const [notify, asked, moved] = ['systemd-notify', 'systemctl show', 'cgroup.procs'].map((word) =>
    script.indexOf(word),
  );
  assert.ok(notify !== undefined && asked !== undefined && moved !== undefined);
  assert.ok(0 < notify && notify < asked && asked < moved);
});

/** Runs a helper with these programs in the place of systemd's. @returns its exit status */
function runHelper(systemdNotify: string, systemctl: string): number | null {
  dropIn();
  const text = readFileSync(join(helpers, 'adopt.sh'), 'utf8');
  // It is not in the unit's cgroup, and nobody is moved anywhere.
  const script = text.replace(/^case.*?^esac$/ms, '').replace(/^while.*?^done.*$/ms, '');
  const programs = join(directory, 'programs');
  mkdirSync(programs, { recursive: true });
  const program = (name: string, text: string): void =>
    writeFileSync(join(programs, name), `#!/bin/sh\n${text}\n`, { mode: 0o700 });
  program('systemd-notify', systemdNotify);
  program('sleep', 'exit 0');
  program('systemctl', systemctl);
  const path = join(helpers, 'tried.sh');
  writeFileSync(path, script);
  rmSync(join(helpers, `${adoption.unit}.why`), { force: true });
  const env = { ...process.env, PATH: `${programs}:${process.env.PATH}` };
  return spawnSync('/bin/sh', [path, adoption.unit], { env, encoding: 'utf8' }).status;
}

test('a helper asks again where systemd does not answer, and says why it has not moved a process', () => {
  const asked = join(directory, 'asked');
  assert.equal(runHelper('exit 0', `[ -e ${asked} ] && echo 19 || { : >${asked}; exit 1; }`), 1);
  const said = helperSays(adoption.unit, helpers);
  assert.equal(said, `systemd has 19 as the main process of ${adoption.unit}, not 20`);
});

test('a helper goes on where systemd is slow to take what it was told', () => {
  const busy = join(directory, 'busy');
  assert.equal(runHelper('exit 1', `[ -e ${busy} ] && echo 20 || { : >${busy}; echo 300; }`), 0);
  assert.equal(helperSays(adoption.unit, helpers), '');
});

test('the type of a unit is the last one that is set, or follows from a name on the bus', () => {
  assert.equal(
    serviceType('# /usr/x\n[Service]\nType=dbus\n# /etc/y\n[Service]\nType = forking\n', 'a.b'),
    'forking',
  );
  assert.equal(serviceType('[Service]\nExecStart=/bin/x\n', 'a.b'), 'dbus');
  assert.equal(serviceType('[Service]\nExecStart=/bin/x\n', ''), 'simple');
});

test('why a service has not taken up its processes is said in the words of systemd', () => {
  const now = {
    LoadState: 'loaded',
    ActiveState: 'failed',
    SubState: 'failed',
    Result: 'exit-code',
    ExecMainStatus: '214',
    MainPID: '0',
  };
  const of = (more: Partial<typeof now>) => whyNot(20, new Map(Object.entries({ ...now, ...more })));
  assert.equal(of({}), 'it is failed (failed, exit-code, status 214)');
  const dependency = 'A dependency job for web.service failed.\nSee journalctl';
  assert.match(
    whyNot(20, new Map(Object.entries(now)), dependency),
    /\): A dependency job for web.service failed\.$/,
  );
  assert.equal(of({ MainPID: '300' }), 'it has main process 300 instead of 20');
  assert.equal(of({ LoadState: 'masked' }), 'the unit is masked');
});

test('processes that are not in the cgroup of their unit yet are told from those that have ended', () => {
  const cgroups = new Map([
    [20, '/system.slice/web.service'],
    [21, '/system.slice/web.service/workers'],
    [22, '/otherworld.slice/otherworld-22.scope'],
    [24, '/otherworld.slice/otherworld-24.scope'],
  ]);
  const processes = [20, 21, 22, 23, 24].map((pid) => ({ pid, below: '' }));
  const look = {
    stat: (pid: number) => (cgroups.has(pid) ? { startTicks: pid, isZombie: pid === 24 } : undefined),
    cgroup: (pid: number) => cgroups.get(pid),
  };
  assert.deepEqual(outsideUnit({ unit: 'web.service', processes }, look), [22]);
});

test('processes are waited for as long as the helper is there that moves them', async () => {
  let looks = 0;
  const after = (count: number) => () => (looks++ < count ? [22] : []);
  assert.equal(await whoStaysOutside(after(3), () => true), undefined);
  // It has moved the last one and ended since the look.
  looks = 0;
  assert.equal(await whoStaysOutside(after(1), () => false), undefined);
  const never = () => [22];
  const stays = 'not moved into its cgroup: 22';
  assert.equal(await whoStaysOutside(never, () => false), stays);
  assert.equal(await whoStaysOutside(never, () => true, 1), stays);
});
