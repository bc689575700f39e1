// Boots one armed guest per release and kills its kernel under services that systemd runs in sandboxes: one
// for each kind of sandbox, one whose unit file was changed on the disk meanwhile, one that has made a
// namespace itself. One panic for all of them. Only where nothing is left out: sandboxes are off by default.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { IncidentReport } from '../../src/report/schema.ts';
import { bootTestGuest, isWhole, release, type TestGuest } from './harness.ts';

const PROGRAM = '/usr/bin/python3 /usr/local/bin/sandboxed.py /var/lib/%p/found';
/** Has made its mount namespace itself. */
const ITSELF = '/usr/bin/unshare --mount /bin/sh -c "echo ready >/var/lib/itself/found; exec sleep infinity"';
/** CRIU 3.17 of Debian 12 does not restore no_new_privs, which systemd sets with filters for other users. */
const isOld = release === 'bookworm';

const UNITS = {
  'private-tmp': 'PrivateTmp=yes',
  'read-only':
    'ProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\nPrivateDevices=yes\nRuntimeDirectory=%p\n' +
    'ProtectHostname=yes\nTemporaryFileSystem=/srv',
  filtered:
    'PrivateTmp=yes\nProtectSystem=full\nSystemCallFilter=@system-service\nMemoryDenyWriteExecute=yes\n' +
    `RestrictNamespaces=yes\nCapabilityBoundingSet=CAP_CHOWN CAP_KILL\nNoNewPrivileges=${isOld ? 'no' : 'yes'}`,
  // Its output was opened before its sandbox was made.
  appending: 'PrivateTmp=yes\nStandardOutput=append:/var/log/appending',
  // With a user, and so a number, of its own.
  dynamic: 'DynamicUser=yes',
  // No sandbox at all, but filters.
  'only-filtered': 'RestrictRealtime=yes\nMemoryDenyWriteExecute=yes',
  changed: 'PrivateTmp=yes\nProtectSystem=full',
  itself: '',
} as const;
type Unit = keyof typeof UNITS;

/** systemd sets no_new_privs for a dynamic user. */
const NAMES = (Object.keys(UNITS) as Unit[]).filter((name) => name !== 'dynamic' || !isOld);
const RESTORED = NAMES.filter((name) => name !== 'changed' && name !== 'itself');

function unitFile(name: Unit, settings: string = UNITS[name]): string {
  const start = name === 'itself' ? ITSELF : PROGRAM;
  return [
    '[Unit]',
    `Description=${name}`,
    '[Service]',
    `ExecStart=${start}`,
    'StateDirectory=%p',
    settings,
    '[Install]',
    'WantedBy=multi-user.target',
    '',
  ].join('\n');
}

suite(`sandboxed services with ${release}`, { skip: !isWhole }, () => {
  let guest: TestGuest;
  let report: IncidentReport;
  const before_ = new Map<Unit, { pid: number; found: string }>();

  const write = async (name: Unit, settings?: string): Promise<string> =>
    guest.sh(`cat >/etc/systemd/system/${name}.service <<'EOF'\n${unitFile(name, settings)}EOF`);
  const mainPid = async (name: Unit): Promise<number> =>
    Number(await guest.sh(`systemctl show --value --property=MainPID ${name}`));
  /** What a service finds from inside. */
  const look = async (name: Unit): Promise<string> => {
    await guest.sh(`rm -f /var/lib/${name}/found; systemctl kill --signal=USR1 --kill-whom=main ${name}`);
    return guest.until(`grep . /var/lib/${name}/found`, 60);
  };
  const outcomesOf = (name: Unit) =>
    report.processes
      .filter(({ unit }) => unit === `${name}.service`)
      .map(({ outcome, reasons, adopted }) => ({ outcome, reasons, adopted }));

  before(async () => {
    guest = await bootTestGuest('sandbox', { configuration: '[services]\nsandboxes = "restore"\n' });
    await guest.copyIn('test/guest/programs/sandboxed.py', '/usr/local/bin/sandboxed.py');
    await guest.sh('mkdir -p /home/somebody');
    for (const name of NAMES) await write(name);
    await guest.sh(`systemctl daemon-reload; systemctl -q enable --now ${NAMES.join(' ')}`);
    for (const name of NAMES) {
      await guest.until(`grep -q ready /var/lib/${name}/found`, 60);
      const found = name === 'itself' ? '' : await look(name);
      before_.set(name, { pid: await mainPid(name), found });
    }
    await guest.sh(`otherworld protect ${NAMES.map((name) => `--unit ${name}`).join(' ')}`);
    await write('changed', 'PrivateTmp=yes\nProtectSystem=no');
    await guest.sh('sync');
    report = await guest.panic('sysrq');
  });
  after(() => guest?.down());

  for (const name of RESTORED) {
    test(`${name} goes on in its sandbox, as it was`, async () => {
      assert.deepEqual(outcomesOf(name), [{ outcome: 'restored', reasons: [], adopted: `${name}.service` }]);
      assert.equal(await mainPid(name), before_.get(name)?.pid);
      assert.equal(await look(name), before_.get(name)?.found);
      assert.equal(
        await guest.sh(`cat /proc/${before_.get(name)?.pid}/cgroup`),
        `0::/system.slice/${name}.service`,
      );
    });

    test(`${name} is systemd's own again`, async () => {
      assert.equal(await guest.sh(`systemctl show --value --property=DropInPaths ${name}`), '');
      assert.equal(await guest.sh(`systemctl show --value --property=ControlPID ${name}`), '0');
      const cgroup = `/sys/fs/cgroup/system.slice/${name}.service/cgroup.procs`;
      assert.equal(await guest.sh(`cat ${cgroup}`), String(before_.get(name)?.pid));
      const log = name === 'appending' ? 'cat /var/log/appending' : `journalctl -u ${name} -b --output=cat`;
      assert.equal(await guest.sh(`${log} | grep -c ^looked`), name === 'appending' ? '2' : '1');
      await guest.sh(`systemctl restart ${name}`);
      await guest.until(`grep -q ready /var/lib/${name}/found`, 60);
      assert.notEqual(await mainPid(name), before_.get(name)?.pid);
      await guest.sh(`systemctl stop ${name}`);
      assert.equal(await guest.sh(`systemctl is-active ${name} || true`), 'inactive');
    });
  }

  test('a service whose sandbox is another one now is refused, and starts afresh', async () => {
    const [outcome] = outcomesOf('changed');
    assert.equal(outcome?.outcome, 'failed');
    assert.match(
      outcome?.reasons[0] ?? '',
      /^its sandbox has .* at \/(usr|etc|boot).* now, and had .*read-only/,
    );
    await guest.until('systemctl is-active changed', 60);
    await guest.until('grep -q ready /var/lib/changed/found', 60);
    assert.notEqual(await mainPid('changed'), before_.get('changed')?.pid);
    assert.equal(await guest.sh('systemctl show --value --property=DropInPaths changed'), '');
  });

  test('a namespace that nobody but the process has made is refused', () => {
    const [outcome] = outcomesOf('itself');
    assert.deepEqual(
      [outcome?.outcome, outcome?.reasons],
      ['failed', ['itself.service has no sandbox any more']],
    );
  });

  test('nothing of it is left over', async () => {
    assert.deepEqual(report.errors, []);
    assert.equal(await guest.sh('systemctl --failed --plain --no-legend'), '');
    assert.equal(
      await guest.sh(
        'ls -d /tmp/systemd-private-*-private-tmp.service-* /var/tmp/systemd-private-*-private-tmp.service-* 2>/dev/null | wc -l',
      ),
      '0',
    );
    assert.equal(await guest.sh('ls /sys/fs/cgroup | grep otherworld-restore || true'), '');
  });
});
