// Boots one armed guest per release and makes several things go wrong at once: a process that is to be given
// up, images that do not fit, a file that is in the way, a damaged rule, a rule that names nobody. Each must
// be reported with its reason, and none may keep the others from coming back.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { dropConnection } from '../../lab/channel.ts';
import { type IncidentReport, type ProcessReport, reportSchema } from '../../src/report/schema.ts';
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

const RULES = '/var/lib/otherworld/protection.json';

suite(`an incident with ${release}`, () => {
  let guest: TestGuest;
  let report: IncidentReport;
  const pids = { culprit: 0, large: 0, sound: 0, inTheWay: 0 };

  before(async () => {
    guest = await bootTestGuest('incident');
    await guest.sh(
      'mkdir -p /mnt/small /etc/otherworld && echo "tmpfs /mnt/small tmpfs size=24M 0 0" >>/etc/fstab && mount /mnt/small',
    );
    await guest.sh(`cat >/etc/otherworld/otherworld.toml <<'EOF'\n${CONFIG}EOF`);
    await guest.sh('otherworld arm', 300);
    pids.large = await guest.background(LARGE);
    pids.sound = await guest.background('exec sleep 3600');
    // The crash world has a file of this name already.
    await guest.sh('mkdir -p /run/otherworld/payload && echo mine >/run/otherworld/payload/init');
    pids.inTheWay = await guest.background('exec 7<>/run/otherworld/payload/init; exec sleep 3600');
    pids.culprit = await guest.background(
      'while [ ! -e /run/go ]; do sleep 0.2; done; echo c >/proc/sysrq-trigger',
    );
    await guest.until(`[ $(awk '/VmRSS/ { print $2 }' /proc/${pids.large}/status) -gt 40000 ]`, 60);
    await guest.protect(Object.values(pids));
    await guest.sh(`sed -i 's/"rules": \\[/&{"kind":"unit"},/' ${RULES}; sync`);
    assert.match(await guest.sh('otherworld status || true'), /rule 1 of 5 is damaged, and lost: /);
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
      /its images need \d+ MiB, and \d+ MiB are free in \/mnt\/small/,
    );
    assert.equal(await guest.sh('find /mnt/small/images -type f'), '');
  });

  test('a group whose file cannot be made again leaves no images behind either', async () => {
    assert.equal(of(pids.inTheWay).outcome, 'failed');
    assert.match(of(pids.inTheWay).reasons.join(), /\/run\/otherworld\/payload\/init is there already/);
    assert.equal(await guest.sh('ls -A /mnt/small/images'), '');
  });

  test('what CRIU wrote is kept with the incident', async () => {
    const log = `/var/lib/otherworld/incidents/${report.id}/restore-${of(pids.sound).group}.log`;
    assert.match(await guest.sh(`tail -n 20 ${log}`), /Restore finished successfully/);
  });

  test('a damaged rule costs no other one, is named, and its file is kept', async () => {
    assert.match(report.errors.join('\n'), /protection\.json: rule 1 of 5 is damaged, and lost: /);
    const { rules } = JSON.parse(await guest.sh(`cat ${RULES}`));
    assert.equal(rules.length, 4);
    assert.match(await guest.sh(`cat ${RULES}.damaged-*`), /\{"kind":"unit"\}/);
  });

  test('incidents are removed when somebody says so', async () => {
    assert.equal(await guest.sh('otherworld report --prune'), 'nothing is over its limits');
    const unknown = await guest.exec(['otherworld', 'report', '--prune', '2020-01-01T00-00-00Z']);
    assert.equal(unknown.status, 1);
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
