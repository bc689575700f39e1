import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SANDBOX_MINUTES } from '../../config/restore-time.ts';
import { INTERFACE, LENT_TABLE } from '../../criu/restore/names.ts';
import type { UnitAdoption } from '../systemd/adoption.ts';
import {
  ADOPT_DIRECTORY,
  crashWorldCommand,
  HELPER_FUNCTIONS,
  SANDBOX_UNIT,
  SYSTEMD_UNITS,
  writeAdoptingDropIn,
} from '../systemd/units.ts';

/**
 * Below it each group with TCP connections has a cgroup with one process, which has the kernel leave them
 * unanswered. It outlives the crash world's program, and systemd knows nothing of it.
 */
export const UNANSWERED = '/sys/fs/cgroup/otherworld-unanswered';
const ADOPT_SCRIPT = 'adopt-sandbox.sh';

/** Files by which the helper of a unit and the program that restores into its sandbox talk. */
export function sandboxFiles(unit: string, helpers: string = ADOPT_DIRECTORY) {
  return {
    /** The placeholder's number: the sandbox is there. */
    waits: join(helpers, `${unit}.waits`),
    /** The processes are there. */
    restored: join(helpers, `${unit}.restored`),
    /** The unit has been told to start afresh: once is enough. */
    told: join(helpers, `${unit}.told`),
    /** They are not, and will not be: the unit is started afresh as soon as it is active. */
    afresh: join(helpers, `${unit}.afresh`),
    /** The same of a unit that came to no placeholder in time: it is not to get one any more. */
    failed: join(helpers, `${unit}.failed`),
  };
}

/** There when the program that restores has ended, however. */
const ENDED = join(ADOPT_DIRECTORY, 'sandboxes-ended');

/**
 * Started by systemd, with the unit's name, when its placeholder runs in the sandbox; as root and outside of
 * it. It waits until the processes have been restored around the placeholder, names their main one to
 * systemd, and ends the placeholder. Until systemd calls the unit active, the processes are held outside the
 * unit's cgroup, where nothing of this can end them. Whatever its status, the start does not fail, and with
 * it whatever requires the unit: where the processes do not come back the unit becomes active with its
 * placeholder, and is restarted then.
 */
const ADOPT = `#!/bin/sh
unit=$1
list=$(dirname "$0")/$unit
main=$(sed -n '1s/ .*//p' "$list")
${HELPER_FUNCTIONS}placeholder=$MAINPID
echo "$placeholder" >"$list.waits.part" && mv "$list.waits.part" "$list.waits" || exit 1
until [ -e "$list.restored" ]; do
    [ ! -e "$list.afresh" ] || exit 0
    [ ! -e "$list.failed" ] && [ ! -e ${ENDED} ] || exit 1
    sleep 0.5
done
name_main || exit 1
kill -KILL "$placeholder"
exit 0
`;

/**
 * In place of the unit's program, which would run at once: it does nothing, has all that the unit is given,
 * and is ended when the processes are there. Where systemd cannot make the sandbox, or nothing of this can be
 * run in it, the start is none that has failed (`-`): the unit becomes active without any process, what
 * requires it starts, nothing is done about a failure, and it is restarted as itself.
 */
const PLACEHOLDER = '-/bin/sleep infinity';

/** Writes the drop-in of a unit whose sandbox has to be made before its processes are restored. */
export function writeSandboxDropIn(
  adoption: UnitAdoption,
  units: string = SYSTEMD_UNITS,
  helpers: string = ADOPT_DIRECTORY,
): void {
  writeAdoptingDropIn(
    adoption,
    {
      // All that the sandbox is made of stays.
      resets: [],
      start: [
        'Type=exec',
        `ExecStart=${PLACEHOLDER}`,
        'RemainAfterExit=yes',
        // Nobody answers for it until its processes run again.
        'WatchdogSec=0',
        `ExecStartPost=-+/bin/sh ${join(helpers, ADOPT_SCRIPT)} %n`,
      ],
      timeout: `${SANDBOX_MINUTES}min`,
    },
    units,
    helpers,
  );
  writeFileSync(join(helpers, ADOPT_SCRIPT), ADOPT, { mode: 0o700 });
}

/** Has the system's managers of networks leave the interface alone on which connections are made. */
function writeUnmanaged(run: string): void {
  const files = {
    // The first file that fits is taken, by its name: before those of the administrator.
    'systemd/network/0-otherworld.network': `[Match]\nName=${INTERFACE}\n\n[Link]\nUnmanaged=yes\n`,
    'udev/rules.d/99-otherworld.rules': `SUBSYSTEM=="net", KERNEL=="${INTERFACE}", ENV{NM_UNMANAGED}="1"\n`,
  };
  for (const [name, text] of Object.entries(files)) {
    const path = join(run, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
}

/** Has systemd run `sandboxes` of the crash world's program from the beginning of the boot on. */
export function writeSandboxUnit(units: string = SYSTEMD_UNITS, run: string = '/run'): void {
  writeUnmanaged(run);
  const wants = join(units, 'multi-user.target.wants');
  mkdirSync(wants, { recursive: true });
  // Processes that are restored and held do not outlive the program that would let them go, nor does what
  // keeps the peers of connections from being answered, and what was made for them.
  const kills = ['/sys/fs/cgroup/otherworld-restore', UNANSWERED].map((cgroup) => `${cgroup}/cgroup.kill`);
  const network = `[ ! -e /sys/class/net/${INTERFACE} ] || ip link delete ${INTERFACE}`;
  const rules = ['-4', '-6'].map((family) => `ip ${family} rule flush table ${LENT_TABLE}`);
  const ends = kills.map((kill) => `[ ! -e ${kill} ] || echo 1 >${kill}`);
  const after = [`: >${ENDED}`, ...ends, ...rules, network].join('; ');
  writeFileSync(
    join(units, SANDBOX_UNIT),
    `[Unit]
Description=Otherworld: processes come back into their sandboxes
DefaultDependencies=no
After=local-fs.target systemd-tmpfiles-setup.service systemd-journald.socket
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
TimeoutStartSec=${SANDBOX_MINUTES}min
ExecStart=${crashWorldCommand('sandboxes').join(' ')}
ExecStopPost=/bin/sh -c '${after}'
`,
  );
  rmSync(join(wants, SANDBOX_UNIT), { force: true });
  symlinkSync(join(units, SANDBOX_UNIT), join(wants, SANDBOX_UNIT));
}
