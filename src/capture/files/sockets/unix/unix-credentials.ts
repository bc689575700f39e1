import { readCred } from '../../../../linux/cred.ts';
import { pidNr } from '../../../../linux/pid.ts';
import { taskAt } from '../../../../linux/sched.ts';
import type { Sock } from '../../../../linux/sock.ts';
import { showUnixName } from '../../../../linux/unix.ts';
import type { CaptureContext } from '../../context.ts';

/** Who had a socket listen; undefined if that is not known. */
function peerPid({ kernel }: CaptureContext, { sk_peer_pid }: Sock): number | undefined {
  return sk_peer_pid === 0n ? undefined : pidNr(kernel, sk_peer_pid);
}

/** The process that has a socket listen that is bound late: the same as before, if that still has it. */
export function listenerOfLate(context: CaptureContext, sock: Sock): number | undefined {
  const holders = context.system.holdersOfObject(sock.address).filter(({ isProtected }) => isProtected);
  const before = peerPid(context, sock);
  return (holders.find(({ pid }) => pid === before) ?? holders[0])?.pid;
}

/**
 * CRIU makes sockets as root: SO_PEERCRED, of a listening socket's new clients as well, then tells of root
 * instead of another user. One that is bound late tells of the process that has it listen, as it is now.
 * @param listener that process
 */
export function notePeerCredentials(
  context: CaptureContext,
  sock: Sock,
  name: Uint8Array,
  listener: number | undefined,
): void {
  const { kernel, system } = context;
  if (sock.sk_peer_cred === 0n) return;
  const { euid, egid } = readCred(kernel, sock.sk_peer_cred);
  const where = name.length === 0 ? 'a unix socket' : `the unix socket ${showUnixName(name)}`;
  const note = (now: string, before: string): void =>
    context.noteHolders(
      system.holdersOfObject(sock.address),
      `SO_PEERCRED of ${where} tells of ${now}, no longer of ${before}`,
    );
  const task = listener === undefined ? undefined : context.tasks.get(listener)?.task;
  if (task === undefined) {
    if (euid !== 0 || egid !== 0) note('root', `user ${euid}, group ${egid}`);
    return;
  }
  const now = readCred(kernel, taskAt(kernel, task).cred);
  const show = (pid: number | undefined, user: number, group: number): string =>
    `process ${pid ?? 'unknown'}, user ${user}, group ${group}`;
  const [is, was] = [show(listener, now.euid, now.egid), show(peerPid(context, sock), euid, egid)];
  if (is !== was) note(is, was);
}
