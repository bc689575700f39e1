import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PAYLOAD_DIRECTORY, RUN_DIRECTORY } from '../config/paths.ts';
import type { UnitAdoption } from './adoption.ts';
import { runtimeProgram } from './restore-stage.ts';

const UNITS = '/run/systemd/system';
const DROP_IN = '90-otherworld.conf';
export const TMPFILES = 'systemd-tmpfiles-setup.service';
const SETTLE = 'otherworld-settle.service';
const ADOPT = join(RUN_DIRECTORY, 'adopt');

/** Started by systemd in place of a service's program: it only says which process is the service. */
const ADOPT_SCRIPT = `#!/bin/sh
kill -0 "$1" || exit 1
exec systemd-notify --ready --pid="$1" --status="brought back by Otherworld"
`;

/**
 * For the time of the boot, a service that is to take up its processes does not start its program: Type=notify and a helper that names the
 * main process. `+` runs the helper as root and outside the unit's sandbox (systemd.service(5)). The unit's other
 * settings stay, and after the boot the drop-in goes.
 */
function dropIn({ mainPid }: UnitAdoption): string {
  return `[Service]
Type=notify
NotifyAccess=all
Restart=no
PIDFile=
ExecCondition=
ExecStartPre=
ExecStart=
ExecStart=+${ADOPT} ${mainPid}
ExecStartPost=
`;
}

/** Writes a service's drop-in. */
export function writeDropIn(adoption: UnitAdoption, units: string = UNITS): void {
  const directory = join(units, `${adoption.unit}.d`);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, DROP_IN), dropIn(adoption));
  writeFileSync(ADOPT, ADOPT_SCRIPT, { mode: 0o700 });
}

/** Removes a service's drop-in; the next daemon-reload makes the unit what it was. */
export function removeDropIn(unit: string, units: string = UNITS): void {
  const directory = join(units, `${unit}.d`);
  rmSync(join(directory, DROP_IN), { force: true });
  try {
    rmSync(directory, { recursive: false });
  } catch {
    // Somebody else's drop-ins are in it.
  }
}

/** The command that runs a part of the crash world's program with the runtime of the initramfs. */
export function crashWorldCommand(part: string): string[] {
  return [...runtimeProgram('node'), join(PAYLOAD_DIRECTORY, 'crash-world.mjs'), part];
}

/**
 * Lets the boot leave alone what the processes have in /tmp and the like: for a boot systemd-tmpfiles also removes (`D` of
 * tmpfiles.d(5); Debian 12 empties /tmp so), and for the processes there was none.
 */
export function keepTemporaryFiles(units: string = UNITS): void {
  const directory = join(units, `${TMPFILES}.d`);
  mkdirSync(directory, { recursive: true });
  const start = 'systemd-tmpfiles --create --boot --exclude-prefix=/dev';
  writeFileSync(join(directory, DROP_IN), `[Service]\nExecStart=\nExecStart=${start}\n`);
}

/** Makes systemd finish the resurrection when it has booted: `settle` of the crash world's program. */
export function writeSettleUnit(units: string = UNITS): void {
  const wants = join(units, 'multi-user.target.wants');
  mkdirSync(wants, { recursive: true });
  writeFileSync(
    join(units, SETTLE),
    `[Unit]
Description=Otherworld: services take up their resurrected processes
DefaultDependencies=no
After=multi-user.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=exec
ExecStart=${crashWorldCommand('settle').join(' ')}
`,
  );
  rmSync(join(wants, SETTLE), { force: true });
  symlinkSync(join(units, SETTLE), join(wants, SETTLE));
}
