import { readFileSync, readlinkSync } from 'node:fs';
import type { Sandbox } from '../../model/sandbox.ts';
import { inNamespacesOf } from '../../system/namespaces.ts';

/** The namespaces that a sandbox is made of. */
export const sandboxKinds = ['mnt', 'uts', 'ipc'] as const;
type SandboxKind = (typeof sandboxKinds)[number];

/** Which namespace of a kind a process is in; equal for two that share it. */
export function namespaceOf(pid: number | 'self', kind: SandboxKind): string {
  return readlinkSync(`/proc/${pid}/ns/${kind}`);
}

/** By the file below /proc/sys. */
type Settings = Readonly<Record<string, string>>;

/** What of the sandbox is a namespace with settings of its own. */
const settingsOf: Readonly<
  Record<Exclude<SandboxKind, 'mnt'>, (sandbox: Pick<Sandbox, 'hostName' | 'ipc'>) => Settings | undefined>
> = {
  uts: ({ hostName }) =>
    hostName === undefined
      ? undefined
      : { 'kernel/hostname': hostName.node, 'kernel/domainname': hostName.domain },
  ipc: ({ ipc }) => ipc,
};

/**
 * Why the UTS and IPC namespaces of a new sandbox are not as the old one's (`ProtectHostname=`,
 * `PrivateIPC=`): each has to be of its own, or the system's, as it was, with the same settings.
 * @param placeholder a process in the new one
 * @returns a sentence for each difference
 */
export function namespaceDifferences(
  sandbox: Pick<Sandbox, 'hostName' | 'ipc'>,
  placeholder: number,
): string[] {
  return (['uts', 'ipc'] as const).flatMap((kind) => {
    const was = settingsOf[kind](sandbox);
    const isOwn = namespaceOf(placeholder, kind) !== namespaceOf('self', kind);
    if (isOwn !== (was !== undefined))
      return [
        `its sandbox has ${isOwn ? 'a' : 'no'} ${kind} namespace of its own now, and had ${isOwn ? 'none' : 'one'}`,
      ];
    return settingDifferences(was ?? {}, placeholder);
  });
}

function settingDifferences(was: Settings, placeholder: number): string[] {
  const read = (file: string): string =>
    readFileSync(`/proc/sys/${file}`, 'latin1').trim().split(/\s+/).join(' ');
  // By this program's own /proc: that of the sandbox may have no settings (`ProcSubset=pid`), or none at all.
  const now = inNamespacesOf(placeholder, () => Object.keys(was).map(read), ['uts', 'ipc']);
  return Object.entries(was).flatMap(([file, value], i) =>
    now[i] === value ? [] : [`its sandbox has ${file.replaceAll('/', '.')} ${now[i]} now, and had ${value}`],
  );
}
