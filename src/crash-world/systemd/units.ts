import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { PAYLOAD_DIRECTORY, RUN_DIRECTORY } from '../../config/paths.ts';
import { STREAMS_GIVEN, STREAMS_TAKEN } from '../../criu/restore/names.ts';
import { ifThere } from '../../system/proc.ts';
import { runtimeProgram } from '../runtime-program.ts';
import type { UnitAdoption } from './adoption.ts';

/** Where units and drop-ins of this boot are. */
export const SYSTEMD_UNITS = '/run/systemd/system';
/**
 * Of all drop-ins of a unit the last name has the last word (systemd.unit(5)), `override.conf` of `systemctl
 * edit` among them.
 */
const DROP_IN = 'zzzz-otherworld.conf';
const TMPFILES = 'systemd-tmpfiles-setup.service';
const JOURNAL = 'systemd-journald.service';
const SETTLE = 'otherworld-settle.service';
/** Restores what has to be restored into sandboxes, while the system boots. */
export const SANDBOX_UNIT = 'otherworld-sandbox.service';

/** Where the helper and its lists of processes are. */
export const ADOPT_DIRECTORY = join(RUN_DIRECTORY, 'adopt');
const ADOPT_SCRIPT = 'adopt.sh';

/** How often a helper asks for the main process: systemctl gives up on an answer after 25 s. */
const QUESTIONS = 10;

/**
 * Shell functions of the helpers. `say` leaves words for the report, and fails. `name_main` has systemd take
 * `$main` for the main process of `$unit`; its arguments are those of systemd-notify besides. That waits 5 s
 * until systemd has taken the message (sd_notify_barrier in src/notify/notify.c, 252 and 257), which is too
 * short for a manager that starts everything else as well. So its status says nothing, and systemd is asked.
 * A helper has UMask= of its unit, and what others could write to is not believed.
 */
export const HELPER_FUNCTIONS = `umask 022
say() {
    echo "$1" >&2
    echo "$1" >>"$list.why"
    return 1
}
name_main() {
    systemd-notify "$@" "MAINPID=$main"
    tries=0
    until taken=$(systemctl show --property=MainPID --value -- "$unit") && [ "$taken" = "$main" ]; do
        tries=$((tries + 1))
        if [ "$tries" -ge ${QUESTIONS} ]; then
            say "systemd has \${taken:-nothing} as the main process of $unit, not $main"
            return 1
        fi
        sleep 1
    done
}
`;

/**
 * Started by systemd in place of a service's program, with the unit's name. Nothing of it can end a process
 * that it is to take up: these are outside the unit's cgroup, which is what systemd signals, until systemd
 * has the main process and calls the unit active. Only then they are moved. The message to systemd comes from
 * this shell, which is in the unit's cgroup: `systemd-notify --pid` would send it in the name of the main
 * process (src/notify/notify.c, 252), which is not.
 */
const ADOPT = `#!/bin/sh
unit=$1
list=$(dirname "$0")/$unit
main=$(sed -n '1s/ .*//p' "$list")
own=$(sed -n 's/^0:://p' /proc/self/cgroup)/
${HELPER_FUNCTIONS}case $own in
*/"$unit"/*) ;;
*) say "the helper is in cgroup $own, not in that of $unit" || exit 1 ;;
esac
top=/sys/fs/cgroup\${own%%/"$unit"/*}/$unit
name_main --ready --status="brought back by Otherworld" || exit 1
while read -r pid below; do
    mkdir -p "$top$below"
    echo "$pid" >"$top$below/cgroup.procs" || [ ! -e "/proc/$pid" ] || say "process $pid stays outside"
done <"$list"
exit 0
`;

/**
 * For the time of the boot, a service that is to take up its processes does not start its program:
 * Type=notify and a helper that names the main process. `+` runs the helper as root and outside the unit's
 * sandbox. What systemd does before it even runs the helper may fail in this world (a processor, a file or a
 * directory that is not there), what it does when a start fails may hurt (commands that clean up, the removal
 * of the runtime directory, a reboot): all that is left out. Conditions held when the service was started.
 * The unit's other settings stay, and after the boot the drop-in goes. The settings are in systemd.unit(5),
 * systemd.service(5) and systemd.exec(5) of 252 and 257.
 */
const ADOPTING = {
  unit: [
    'ConditionPathExists=',
    'AssertPathExists=',
    'StartLimitIntervalSec=0',
    'RefuseManualStart=no',
    'FailureAction=none',
    'SuccessAction=none',
  ],
  service: [
    'NotifyAccess=all',
    'Restart=no',
    'PIDFile=',
    'ExecCondition=',
    'ExecStartPre=',
    'ExecStart=',
    'ExecStartPost=',
    'ExecStop=',
    'ExecStopPost=',
    'CPUAffinity=',
    'NUMAPolicy=default',
    'NUMAMask=',
    'EnvironmentFile=',
    'WorkingDirectory=',
    'RuntimeDirectoryPreserve=yes',
    'StandardInput=null',
    'StandardOutput=journal',
    'StandardError=inherit',
  ],
};

/** What is started in place of a service's program. */
interface Start {
  /** Further settings that are left out. */
  readonly resets: readonly string[];
  readonly start: readonly string[];
  /** How long it may take. */
  readonly timeout: string;
}

/** The helper runs outside the unit's sandbox, so that need not be made. */
const HELPER: Start = {
  resets: ['LoadCredential=', 'LoadCredentialEncrypted=', 'RootDirectory=', 'RootImage='],
  start: ['Type=notify', `ExecStart=+/bin/sh ${join(ADOPT_DIRECTORY, ADOPT_SCRIPT)} %n`],
  timeout: '5min',
};

/** Why the helper of a unit could not do its work, in its words; empty if it said nothing. */
export function helperSays(unit: string, helpers: string = ADOPT_DIRECTORY): string {
  const said = ifThere(() => readFileSync(join(helpers, `${unit}.why`), 'utf8')) ?? '';
  return said.trim().split('\n').join('; ');
}

/** Writes a service's drop-in, and for the helper the processes with the main one first. */
export function writeDropIn(
  adoption: UnitAdoption,
  units: string = SYSTEMD_UNITS,
  helpers: string = ADOPT_DIRECTORY,
): void {
  writeAdoptingDropIn(adoption, HELPER, units, helpers);
  writeFileSync(join(helpers, ADOPT_SCRIPT), ADOPT, { mode: 0o700 });
}

/** Writes a drop-in with which a service starts something else than its program, and the list for that. */
export function writeAdoptingDropIn(
  { unit, mainPid, processes }: UnitAdoption,
  { resets, start, timeout }: Start,
  units: string,
  helpers: string,
): void {
  const service = [...ADOPTING.service, ...resets, ...start, `TimeoutStartSec=${timeout}`];
  writeUnitDropIn(unit, ['[Unit]', ...ADOPTING.unit, '', '[Service]', ...service, ''].join('\n'), units);
  const main = processes.filter(({ pid }) => pid === mainPid);
  const others = processes.filter(({ pid }) => pid !== mainPid);
  const list = [...main, ...others].map(({ pid, below }) => `${pid} ${below}\n`).join('');
  mkdirSync(helpers, { recursive: true, mode: 0o700 });
  writeFileSync(join(helpers, unit), list, { mode: 0o600 });
}

function writeUnitDropIn(unit: string, text: string, units: string): void {
  const directory = join(units, `${unit}.d`);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, DROP_IN), text);
}

/**
 * For a service of Type=dbus whose name nobody has on the bus: systemd ends the processes of such a service
 * as soon as it looks (service_bus_name_owner_change in src/core/service.c). Until the next boot it is
 * watched by its main process alone.
 */
export function writeNamelessDropIn(unit: string, units: string = SYSTEMD_UNITS): void {
  writeUnitDropIn(unit, '[Service]\nType=exec\n', units);
}

/**
 * For a service that runs a placeholder and is to be restarted as itself: what it does when it stops is for
 * its own program, and the placeholder ends by this signal without a failure; nothing of it is left.
 */
export function writeAfreshDropIn(unit: string, units: string = SYSTEMD_UNITS): void {
  const stop = [
    'ExecStop=',
    'ExecStopPost=',
    'KillSignal=SIGTERM',
    'KillMode=control-group',
    'SendSIGKILL=yes',
  ];
  writeUnitDropIn(unit, ['[Service]', ...stop, ''].join('\n'), units);
}

/**
 * The `Type=` that a unit has without the drop-in of the boot (config_parse_service_type,
 * service_add_default... of src/core/service.c).
 * @param text what `systemctl cat` prints, in the order in which systemd reads it
 */
export function serviceType(text: string, busName: string): string {
  const set = [...text.matchAll(/^[ \t]*Type[ \t]*=[ \t]*(\S*)/gm)].map(([, type]) => type);
  return set.at(-1) ?? (busName === '' ? 'simple' : 'dbus');
}

/** Removes a service's drop-in; the next daemon-reload makes the unit what it was. */
export function removeDropIn(unit: string, units: string = SYSTEMD_UNITS): void {
  const directory = join(units, `${unit}.d`);
  rmSync(join(directory, DROP_IN), { force: true });
  // Somebody else's drop-ins may be in it.
  if (existsSync(directory) && readdirSync(directory).length === 0) rmdirSync(directory);
}

/** The command that runs a part of the crash world's program with the runtime of the initramfs. */
export function crashWorldCommand(part: string): string[] {
  return [...runtimeProgram('node'), join(PAYLOAD_DIRECTORY, 'crash-world.mjs'), part];
}

/**
 * Lets the boot leave alone what the processes have in /tmp and the like: for a boot systemd-tmpfiles also
 * removes (`D` of tmpfiles.d(5); Debian 12 empties /tmp so), and for the processes there was none.
 */
export function keepTemporaryFiles(units: string = SYSTEMD_UNITS): void {
  const start = 'systemd-tmpfiles --create --boot --exclude-prefix=/dev';
  writeUnitDropIn(TMPFILES, `[Service]\nExecStart=\nExecStart=${start}\n`, units);
}

/** How long the journal waits for the streams: a very busy machine takes a minute to start Node.js. */
const MOST_SECONDS = 180;

/**
 * For the time of the boot, has the journal take up the streams of restored processes when it starts.
 * Whatever becomes of that, the journal starts, and who keeps the streams until then is told.
 */
export function writeJournalDropIn(units: string = SYSTEMD_UNITS): void {
  const give = ['/usr/bin/timeout', String(MOST_SECONDS), ...crashWorldCommand('journal')].join(' ');
  const tell = `mv ${STREAMS_GIVEN} ${STREAMS_TAKEN} || : >>${STREAMS_TAKEN}`;
  writeUnitDropIn(
    JOURNAL,
    `[Service]\nNotifyAccess=all\nTimeoutStartSec=${2 * MOST_SECONDS}\nExecStartPre=-+${give}\nExecStartPre=-+/bin/sh -c "${tell}"\n`,
    units,
  );
}

/** Makes units of the system what they were before the boot. */
export function removeSystemDropIns(units: string = SYSTEMD_UNITS): void {
  for (const unit of [TMPFILES, JOURNAL]) removeDropIn(unit, units);
}

/** Makes systemd finish the resurrection when it has booted: `settle` of the crash world's program. */
export function writeSettleUnit(units: string = SYSTEMD_UNITS): void {
  const wants = join(units, 'multi-user.target.wants');
  mkdirSync(wants, { recursive: true });
  writeFileSync(
    join(units, SETTLE),
    `[Unit]
Description=Otherworld: services take up their resurrected processes
DefaultDependencies=no
After=multi-user.target ${SANDBOX_UNIT}
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
