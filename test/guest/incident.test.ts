// Boots one armed guest per release and makes several things go wrong at once: a process that is to be given up, images that do not fit, a
// rule that names nobody. Each must be reported with its reason, and none may keep the others from coming back.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { dropConnection } from '../../lab/channel.ts';
import { type ProcessReport, type Report, reportSchema } from '../../src/report/schema.ts';
import { bootTestGuest, release, type TestGuest } from './harness.ts';

const CONFIG = `[images]
directory = "/mnt/small/images"
keep = "never"
[crash-loop]
incidents = 1
[protect]
commands = ["nobody"]
`;

/** 40 MB in a shell's memory: more than the file system for images holds. */
const LARGE = `x=$(head -c 40000000 /dev/zero | tr '\\0' x); sleep 3600; echo "$x"`;

suite(`an incident with ${release}`, () => {
  let guest: TestGuest;
  let report: Report;
  const pids = { culprit: 0, large: 0, sound: 0 };

  before(async () => {
    guest = await bootTestGuest('incident', { arm: false });
    await guest.sh(
      'mkdir -p /mnt/small /etc/otherworld && echo "tmpfs /mnt/small tmpfs size=24M 0 0" >>/etc/fstab && mount /mnt/small',
    );
    await guest.sh(`cat >/etc/otherworld/otherworld.toml <<'EOF'\n${CONFIG}EOF`);
    await guest.sh('otherworld arm', 300);
    pids.large = await guest.background(LARGE);
    pids.sound = await guest.background('exec sleep 3600');
    pids.culprit = await guest.background(
      'while [ ! -e /run/go ]; do sleep 0.2; done; echo c >/proc/sysrq-trigger',
    );
    await guest.until(`[ $(awk '/VmRSS/ { print $2 }' /proc/${pids.large}/status) -gt 40000 ]`, 60);
    await guest.sh(`otherworld protect --pid ${pids.large} --pid ${pids.sound} --pid ${pids.culprit}; sync`);
    // The last that this kernel hears; the connection dies with it.
    await guest.sh('(sleep 1; touch /run/go) >/dev/null 2>&1 &');
    await dropConnection(guest.name);
    const file = '/var/lib/otherworld/incidents/*/report.json';
    report = reportSchema.parse(
      JSON.parse(await guest.until(`grep -q '"state": "settled"' ${file} && cat ${file}`, 400)),
    );
  });
  after(() => guest?.down());

  const of = (pid: number): ProcessReport => {
    const found = report.processes.find((process) => process.pid === pid);
    assert.ok(found, `process ${pid} is in the report`);
    return found;
  };

  test('the process on the panicking CPU is given up after as many incidents as configured', () => {
    assert.equal(report.panic?.process?.pid, pids.culprit);
    assert.equal(of(pids.culprit).outcome, 'refused');
    assert.match(of(pids.culprit).reasons.join(), /on the panicking CPU in 1 incidents within 60 minutes/);
  });

  test('a process whose images do not fit fails with that reason, and leaves nothing behind', async () => {
    assert.equal(of(pids.large).outcome, 'failed');
    assert.match(
      of(pids.large).reasons.join(),
      /images could not be written: .*MiB are free in \/mnt\/small/,
    );
    assert.equal(await guest.sh('find /mnt/small/images -type f'), '');
  });

  test('the others run', async () => {
    assert.equal(of(pids.sound).outcome, 'restored');
    assert.equal(await guest.sh(`tr '\\0' ' ' </proc/${pids.sound}/cmdline`), 'sleep 3600 ');
  });

  test('a rule of the configuration that names nobody is reported', () => {
    assert.deepEqual(report.unmatchedRules, ['--command nobody']);
  });

  test('report ends well and says so for people', async () => {
    assert.match(await guest.sh('otherworld report'), /^1 of \d protected processes run again$/m);
  });
});
