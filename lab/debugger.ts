import { connectGdb, type GdbRemote } from './gdb-remote.ts';
import { guestPaths } from './guest.ts';
import { withQmp } from './qmp.ts';

/** Connects to a guest as a debugger does: it stands still meanwhile, and goes on afterwards. */
export async function withDebugger<T>(name: string, work: (remote: GdbRemote) => Promise<T>): Promise<T> {
  const { qmp: qmpSocket, gdb } = guestPaths(name);
  const gdbServer = (address: string): Promise<unknown> =>
    withQmp(qmpSocket, (qmp) =>
      qmp.execute('human-monitor-command', { 'command-line': `gdbserver ${address}` }),
    );
  await gdbServer(`unix:${gdb},server=on,wait=off`);
  const remote = await connectGdb(gdb);
  let result: T;
  try {
    result = await work(remote);
  } finally {
    await remote.detach();
  }
  await gdbServer('none');
  return result;
}
