import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { examinedOf } from '../../../src/crash-world/processes/examine.ts';
import { readSandboxPlan, writeSandboxPlan } from '../../../src/crash-world/sandbox/sandbox-plan.ts';
import {
  sandboxFiles,
  writeSandboxDropIn,
  writeSandboxUnit,
} from '../../../src/crash-world/sandbox/sandbox-units.ts';
import { writeAfreshDropIn } from '../../../src/crash-world/systemd/units.ts';
import { streamHeader } from '../../../src/criu/restore/journal-connection.ts';
import { noFiles } from '../../../src/model/file.ts';
import { areaOf, groupOf, memoryOf, processOf } from '../../criu/processes.ts';
import { pathFileOf } from '../live-group.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-sandbox-units-'));
after(() => rmSync(directory, { recursive: true }));
const [units, helpers] = [join(directory, 'units'), join(directory, 'helpers')];

suite('a unit whose sandbox is made before its processes are restored', () => {
  const unit = 'web@1.service';
  const adoption = { unit, mainPid: 20, processes: [{ pid: 20, below: '' }] };
  const dropIn = (): string[] => {
    writeSandboxDropIn(adoption, units, helpers);
    const [name = ''] = readdirSync(join(units, `${unit}.d`));
    return readFileSync(join(units, `${unit}.d`, name), 'utf8').split('\n');
  };

  test('starts a placeholder with all that the sandbox is made of, and a helper outside of it', () => {
    const lines = dropIn();
    assert.deepEqual(
      lines.filter((line) => /^ExecStart(Post)?=./.test(line)),
      ['ExecStart=-/bin/sleep infinity', `ExecStartPost=-+/bin/sh ${join(helpers, 'adopt-sandbox.sh')} %n`],
    );
    // What is emptied comes before what is set instead.
    assert.ok(lines.indexOf('ExecStartPost=') < lines.findIndex((line) => /^ExecStartPost=./.test(line)));
    for (const name of ['RootDirectory=', 'RootImage=', 'LoadCredential=', 'User=', 'PrivateTmp='])
      assert.ok(!lines.some((line) => line.startsWith(name)), name);
    for (const line of [
      'Restart=no',
      'FailureAction=none',
      'Type=exec',
      'RemainAfterExit=yes',
      'WatchdogSec=0',
    ])
      assert.ok(lines.includes(line), line);
  });

  test('has its processes named to systemd before the placeholder is ended', () => {
    dropIn();
    const script = readFileSync(join(helpers, 'adopt-sandbox.sh'), 'utf8');
    const [waits, named, ended] = ['.waits"', 'name_main ||', 'kill -KILL'].map((words) =>
      script.indexOf(words),
    );
    assert.ok(waits !== undefined && named !== undefined && ended !== undefined);
    assert.ok(0 < waits && waits < named && named < ended);
    assert.equal(sandboxFiles(unit, helpers).waits, join(helpers, `${unit}.waits`));
  });

  test('becomes active with its placeholder where the processes do not come back, and is then restarted', () => {
    dropIn();
    const { waits, afresh, failed } = sandboxFiles(unit, helpers);
    const statusWith = (file: string): number | null => {
      writeFileSync(file, '');
      // As with UMask=0007 of the unit: what others can write to is not believed.
      const script = [join(helpers, 'adopt-sandbox.sh'), unit];
      const { status } = spawnSync('/bin/sh', ['-c', 'umask 0007; exec /bin/sh "$@"', 'sh', ...script], {
        env: { ...process.env, MAINPID: '4711' },
        timeout: 10_000,
      });
      assert.equal(readFileSync(waits, 'utf8'), '4711\n');
      assert.equal(statSync(waits).mode & 0o022, 0);
      rmSync(file);
      return status;
    };
    assert.equal(statusWith(afresh), 0);
    // One that comes too late has been given up already.
    assert.equal(statusWith(failed), 1);
    writeAfreshDropIn(unit, units);
    const [name = ''] = readdirSync(join(units, `${unit}.d`));
    const lines = readFileSync(join(units, `${unit}.d`, name), 'utf8').split('\n');
    assert.deepEqual(
      lines.filter((line) => /^Exec|^Kill|^Send/.test(line)),
      ['ExecStop=', 'ExecStopPost=', 'KillSignal=SIGTERM', 'KillMode=control-group', 'SendSIGKILL=yes'],
    );
  });

  test('is waited for by what settles, and ends what is held whatever happens', () => {
    writeSandboxUnit(units, directory);
    writeSandboxUnit(units, directory);
    const text = readFileSync(join(units, 'multi-user.target.wants/otherworld-sandbox.service'), 'utf8');
    assert.match(text, /^Type=oneshot$/m);
    assert.match(text, /^ExecStopPost=.*cgroup\.kill/m);
    assert.match(
      text,
      /^ExecStopPost=.*ip -4 rule flush table \d+; ip -6 rule flush table \d+; .*otherworld0/m,
    );
  });

  test('has an interface that no manager of networks takes for its own', () => {
    writeSandboxUnit(units, directory);
    const written = (path: string): string => readFileSync(join(directory, path), 'utf8');
    assert.equal(
      written('systemd/network/0-otherworld.network'),
      '[Match]\nName=otherworld0\n\n[Link]\nUnmanaged=yes\n',
    );
    assert.match(written('udev/rules.d/99-otherworld.rules'), /^SUBSYSTEM=="net", KERNEL=="otherworld0", /);
  });

  test('has its streams opened again under its name', () => {
    assert.equal(
      streamHeader({ identifier: 'web', level: 6, levelPrefix: true }, unit),
      `web\n${unit}\n6\n1\n0\n0\n0\n`,
    );
  });
});

test('what is known of a sandboxed group is read as it was written', () => {
  const images = join(directory, 'images');
  mkdirSync(images);
  const memory = memoryOf([areaOf(0x400000, 1, { kind: 'file-private', fileId: 1 }), areaOf(0x600000, 1)], {
    exeFileId: 1,
  });
  const files = {
    ...noFiles,
    files: [pathFileOf(1, '/bin/sh'), { ...pathFileOf(2, '/bin/sh'), path: '/tmp/gone', ghostId: 3 }],
    tables: [{ filesId: 1, descriptors: [{ fd: 0, fileId: 1, closeOnExec: true }] }],
  };
  const mounts = [{ path: '/', type: 'ext4', root: '/', limits: 1, options: '', isOwn: false }];
  const sandbox = {
    ...{ unit: 'web.service', mounts, outside: mounts, hostName: { node: 'a', domain: '(none)' } },
    privateDirectories: [{ path: '/tmp', from: '/tmp/systemd-private/tmp' }],
  };
  const group = { ...groupOf([processOf(7, { memory })]), files, sandbox };
  // As it was then, whatever it is now.
  const unchanged = [{ path: '/bin/sh', dev: '1', ino: '2', changed: '3' }];
  writeSandboxPlan(images, { ...group, ringSeconds: 41 }, { pagesBytes: 4096, unchanged, connections: 2 });
  assert.deepEqual(
    JSON.parse(JSON.stringify(readSandboxPlan(images))),
    JSON.parse(
      JSON.stringify({
        ...{ ringSeconds: 41, pagesBytes: 4096, uids: [1000], made: ['/tmp/gone'], sandbox },
        ...{ unchanged, connections: 2, group: examinedOf(group) },
      }),
    ),
  );
});
