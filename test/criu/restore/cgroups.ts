import { accessSync, constants, existsSync, mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';

/** Whether cgroups can be made and ended below a directory. */
function isUsable(mount: string): boolean {
  const probe = join(mount, `otherworld-test-${process.pid}`);
  try {
    accessSync(join(mount, 'cgroup.procs'), constants.W_OK);
    mkdirSync(probe);
    const usable = existsSync(join(probe, 'cgroup.kill')) && existsSync(join(probe, 'cgroup.freeze'));
    rmdirSync(probe);
    return usable;
  } catch {
    return false;
  }
}

/** A cgroup v2 mount in which this user may do as the crash world does; undefined without one. */
export const cgroups: string | undefined = readFileSync('/proc/self/mountinfo', 'utf8')
  .split('\n')
  .filter((line) => / - cgroup2 /.test(line))
  .map((line) => line.split(' ')[4] ?? '')
  .find(isUsable);

/** For tests that restore. */
export const needsCgroups = {
  skip: cgroups === undefined ? 'needs a cgroup v2 file system that can be written to' : false,
};

/** For scripts of a fake `criu`: `$own` is the directory of the cgroup that it runs in. */
export const findOwn = `own=${cgroups}$(sed -n 's/^0:://p' /proc/self/cgroup)`;

/**
 * For scripts of a fake `criu`: calls the action script that its arguments name, as CRIU does, with the
 * action `$1`.
 */
export const findAction = `for argument; do
  [ "$before" = --action-script ] && script=$argument
  [ "$before" = --images-dir ] && images=$argument
  before=$argument
done
action() { CRTOOLS_SCRIPT_ACTION=$1 "$script"; }`;
