// Boots one armed guest per release and kills its kernel under services that systemd runs in sandboxes: one
// for each kind of sandbox, some whose unit file was changed on the disk meanwhile, one that has made a
// namespace itself. One panic for all of them. Only where nothing is left out: it takes long.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import type { IncidentReport } from '../../src/report/schema.ts';
import { bootTestGuest, isWhole, release, type TestGuest } from './harness.ts';

const PROGRAM = '/usr/bin/python3 /usr/local/bin/sandboxed.py /var/lib/%p/found';
/** Has made its mount namespace itself. */
const ITSELF = '/usr/bin/unshare --mount /bin/sh -c "echo ready >/var/lib/itself/found; exec sleep infinity"';
/** CRIU 3.17 of Debian 12 has restored nobody into a sandbox: all of them are refused. */
const isOld = release === 'bookworm';

const UNITS = {
  // Its deleted file is in a directory of root's alone.
  'private-tmp': 'PrivateTmp=yes\nEnvironment=DELETED=/var/lib/%p',
  'read-only':
    'ProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\nPrivateDevices=yes\nRuntimeDirectory=%p\n' +
    'ProtectHostname=yes\nTemporaryFileSystem=/srv\nEnvironment=DELETED=/run/%p',
  filtered:
    'PrivateTmp=yes\nProtectSystem=full\nSystemCallFilter=@system-service\nMemoryDenyWriteExecute=yes\n' +
    'RestrictNamespaces=yes\nCapabilityBoundingSet=CAP_CHOWN CAP_KILL\nNoNewPrivileges=yes',
  // Its output was opened before its sandbox was made.
  appending: 'PrivateTmp=yes\nStandardOutput=append:/var/log/appending',
  // Has an IPC namespace with nothing in it.
  'own-ipc': 'PrivateIPC=yes\nPrivateTmp=yes',
  // With a user, and so a number, of its own.
  dynamic: 'DynamicUser=yes',
  // No sandbox at all, but filters.
  'only-filtered': 'RestrictRealtime=yes\nMemoryDenyWriteExecute=yes',
  // Its socket and a deleted file are in a directory that is its user's.
  'own-user':
    'User=games\nProtectSystem=strict\nPrivateTmp=yes\nRuntimeDirectory=%p\nEnvironment=DELETED=/run/%p',
  // The same on a disk, where the dead socket's file still is.
  'on-disk':
    'User=games\nProtectSystem=full\nPrivateTmp=yes\n' +
    'Environment=RUNTIME_DIRECTORY=/var/lib/%p DELETED=/var/lib/%p',
  // Its socket was bound through a link, and renamed.
  renamed: 'PrivateTmp=yes\nRuntimeDirectory=%p\nEnvironment=BOUND_AS=/var/run/%p/part',
  changed: 'PrivateTmp=yes\nProtectSystem=full',
  // Its deleted file is in the /tmp that all have.
  shared: 'ProtectSystem=full\nEnvironment=SUFFIX=-shared DELETED=/tmp',
  // Its socket is there.
  open: 'ProtectSystem=full\nEnvironment=SUFFIX=-open RUNTIME_DIRECTORY=/tmp',
  // The same, without a name any more.
  unlinked: 'ProtectSystem=full\nEnvironment=SUFFIX=-unlinked RUNTIME_DIRECTORY=/tmp UNLINKED=yes',
  // Started by hand, and changed.
  'by-hand': 'PrivateTmp=yes\nProtectSystem=full',
  // Changed so that the placeholder cannot run.
  unmade: 'PrivateTmp=yes',
  itself: '',
} as const;
type Unit = keyof typeof UNITS;

const NAMES: readonly Unit[] = isOld ? ['private-tmp'] : (Object.keys(UNITS) as Unit[]);
const CHANGED = {
  changed: 'PrivateTmp=yes\nProtectSystem=no',
  'by-hand': 'PrivateTmp=yes\nProtectSystem=no',
  unmade: 'PrivateTmp=yes\nNoExecPaths=/usr/bin/sleep',
} as const;
/** What others than root could lead CRIU away from. */
const OPEN = {
  unlinked:
    'the unix socket /tmp/socket-unlinked, deleted, which cannot be made in its sandbox: ' +
    'others than root can write to /tmp',
} as const;
/** Those that do not even have to be tried. */
const REFUSED: readonly Unit[] = isOld ? NAMES : (Object.keys(OPEN) as Unit[]);
const RESTORED = NAMES.filter((name) => !(name in CHANGED) && name !== 'itself' && !REFUSED.includes(name));
/** Comes back, and what it requires does not. */
const NEEDY = `[Unit]
Requires=unmade.service
PartOf=unmade.service
After=unmade.service
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
`;
const ALARM = '[Service]\nType=oneshot\nExecStart=/bin/touch /var/lib/alarm\n';

function unitFile(name: Unit, settings: string = UNITS[name]): string {
  const start = name === 'itself' ? ITSELF : PROGRAM;
  return [
    '[Unit]',
    `Description=${name}`,
    ...(name === 'unmade' ? ['OnFailure=alarm.service'] : []),
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
  let needyBefore = '';
  const before_ = new Map<Unit, { pid: number; found: string }>();
  /** Status and words of `otherworld check`. */
  const checked = new Map<Unit, string>();

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
    guest = await bootTestGuest('sandbox');
    await guest.copyIn('test/guest/programs/sandboxed.py', '/usr/local/bin/sandboxed.py');
    await guest.sh('mkdir -p /home/somebody');
    for (const name of NAMES) await write(name);
    await guest.sh(
      [
        `cat >/etc/systemd/system/needy.service <<'EOF'\n${NEEDY}EOF`,
        `cat >/etc/systemd/system/alarm.service <<'EOF'\n${ALARM}EOF`,
        'systemctl daemon-reload',
        `systemctl -q start ${NAMES.join(' ')}`,
        `systemctl -q enable ${NAMES.filter((name) => name !== 'by-hand').join(' ')}`,
        ...(NAMES.includes('unmade') ? ['systemctl -q enable --now needy'] : []),
      ].join('\n'),
    );
    for (const name of NAMES) {
      await guest.until(`grep -q ready /var/lib/${name}/found`, 60);
      const found = name === 'itself' ? '' : await look(name);
      before_.set(name, { pid: await mainPid(name), found });
    }
    for (const name of NAMES.filter((one) => REFUSED.includes(one) || one === 'private-tmp')) {
      const { status, stdout } = await guest.exec(['otherworld', 'check', name]);
      checked.set(name, `${status} ${stdout}`);
    }
    const isNeedy = NAMES.includes('unmade');
    if (isNeedy) needyBefore = await guest.sh('systemctl show --value --property=MainPID needy');
    const units = [...NAMES, ...(isNeedy ? ['needy'] : [])];
    await guest.sh(`otherworld protect ${units.map((name) => `--unit ${name}`).join(' ')}`, 300);
    for (const name of NAMES) if (name in CHANGED) await write(name, CHANGED[name as keyof typeof CHANGED]);
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

  test('with a CRIU that has not done it yet, they are refused, and start with the boot', {
    skip: !isOld,
  }, async () => {
    const [outcome] = outcomesOf('private-tmp');
    assert.equal(outcome?.outcome, 'refused');
    assert.match(
      outcome?.reasons[0] ?? '',
      /^is in the sandbox of private-tmp\.service, where CRIU before 4/,
    );
    await guest.until('systemctl is-active private-tmp', 60);
    assert.notEqual(await mainPid('private-tmp'), before_.get('private-tmp')?.pid);
  });

  const isHere = (name: Unit) => ({ skip: !NAMES.includes(name) });

  test('before the panic it was said of each what would become of it', () => {
    for (const [name, words] of checked) {
      const [outcome] = outcomesOf(name);
      const isRefused = outcome?.outcome === 'refused';
      assert.equal(words.startsWith('3 '), isRefused, `${name}: ${words}`);
      for (const reason of isRefused ? (outcome?.reasons ?? []) : [])
        assert.ok(words.replaceAll(/\s+/g, ' ').includes(reason), `${reason}: ${words}`);
    }
  });

  for (const [name, words] of Object.entries(OPEN) as [Unit, string][]) {
    test(`${name} is refused, for what others than root could lead elsewhere`, isHere(name), () => {
      const [outcome] = outcomesOf(name);
      assert.equal(outcome?.outcome, 'refused');
      assert.match(outcome.reasons.join('; '), new RegExp(`(^|; )has ${words} \\(fd \\d+\\)(;|$)`));
    });
  }

  test('a service that nothing starts is not started if it cannot come back', isHere('by-hand'), async () => {
    const [outcome] = outcomesOf('by-hand');
    assert.equal(outcome?.outcome, 'failed');
    assert.match(outcome?.reasons[0] ?? '', /^its sandbox has .* now, and had .*read-only/);
    assert.ok(report.notes.some((note) => note.startsWith('by-hand.service is not started afresh: ')));
    assert.equal(await guest.sh('systemctl is-active by-hand || true'), 'inactive');
    assert.equal(await guest.sh('systemctl show --value --property=DropInPaths by-hand'), '');
  });

  test('where nothing can be run in the new sandbox, nothing has failed', isHere('unmade'), async () => {
    const [outcome] = outcomesOf('unmade');
    assert.equal(outcome?.outcome, 'failed');
    assert.match(outcome?.reasons[0] ?? '', /^its sandbox was not made, or nothing can be run there/);
    await guest.until('grep -q ready /var/lib/unmade/found && systemctl is-active unmade needy', 60);
    assert.notEqual(await mainPid('unmade'), before_.get('unmade')?.pid);
    // What requires it has come back, and has not been restarted with it.
    assert.equal(await guest.sh('systemctl show --value --property=MainPID needy'), needyBefore);
    assert.equal(await guest.sh('ls /var/lib/alarm 2>/dev/null || true'), '');
  });

  test(
    'a service whose sandbox is another one now is refused, and starts afresh',
    isHere('changed'),
    async () => {
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
    },
  );

  test('a namespace that nobody but the process has made is refused', isHere('itself'), () => {
    const [outcome] = outcomesOf('itself');
    assert.deepEqual(
      [outcome?.outcome, outcome?.reasons],
      ['failed', ['itself.service has no sandbox any more']],
    );
  });

  test('nothing of it is left over', async () => {
    assert.deepEqual(report.errors, []);
    assert.equal(await guest.sh('systemctl --failed --plain --no-legend'), '');
    // It has been stopped. Where nobody comes back it runs, and its directories are there.
    const left =
      'ls -d /tmp/systemd-private-*-private-tmp.service-* /var/tmp/systemd-private-*-private-tmp.service-*';
    if (RESTORED.includes('private-tmp')) assert.equal(await guest.sh(`${left} 2>/dev/null | wc -l`), '0');
    assert.equal(await guest.sh('ls /sys/fs/cgroup | grep otherworld-restore || true'), '');
    assert.equal(await guest.sh('cat /proc/sys/net/ipv4/ip_nonlocal_bind'), '0');
  });
});
