import type { ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { OpenFile } from '../../src/model/file.ts';
import type { ProcessGroup } from '../../src/model/group.ts';
import type { PathFile } from '../../src/model/open-file.ts';
import { areaOf, groupOf, memoryOf, processOf } from '../criu/processes.ts';

const noOwner = { uid: 0, euid: 0, signal: 0, pidType: 0, pid: 0 };

/** A file of a disk, as it is now at its path. */
export function pathFileOf(id: number, path: string): PathFile {
  const stats = statSync(path);
  const { mode, uid, gid, size: sizeBytes, ino: inode } = stats;
  const generation = 0;
  const onDisk = !path.startsWith('/dev/');
  const identity = {
    fileSystem: 'ext4',
    onDisk,
    inode,
    generation,
    mode,
    uid,
    gid,
    sizeBytes,
    rdev: stats.rdev,
  };
  return { type: 'path', id, flags: 0, owner: noOwner, path, position: 0n, identity, ghostId: undefined };
}

/** The model of a process that has stopped itself. */
export async function stoppedGroup({ pid = 0 }: ChildProcess): Promise<ProcessGroup> {
  while (!/^State:\tT/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))) await sleep(5);
  return liveGroup(pid);
}

/** The model of a process: its descriptors, mapped files, program and directories, as /proc shows them. */
function liveGroup(pid: number): ProcessGroup {
  const files: OpenFile[] = [];
  const fileAt = (link: string): number => {
    const name = readlinkSync(link);
    const id = files.length + 1;
    // Whoever runs the tests may have left a pipe open.
    if (name.startsWith('pipe:')) files.push({ type: 'pipe', id, flags: 0, owner: noOwner, pipeId: id });
    else files.push(pathFileOf(id, name));
    return id;
  };
  const descriptors = readdirSync(`/proc/${pid}/fd`).map((fd) => ({
    fd: Number(fd),
    fileId: fileAt(`/proc/${pid}/fd/${fd}`),
    closeOnExec: false,
  }));
  const mapped = readdirSync(`/proc/${pid}/map_files`).map((range) => {
    const [start = 0, end = 0] = range.split('-').map((address) => Number.parseInt(address, 16));
    const fileId = fileAt(`/proc/${pid}/map_files/${range}`);
    return areaOf(start, (end - start) / 4096, { kind: 'file-private', fileId });
  });
  const memory = memoryOf(mapped, { exeFileId: fileAt(`/proc/${pid}/exe`) });
  const [cwdFileId, rootFileId] = [fileAt(`/proc/${pid}/cwd`), fileAt(`/proc/${pid}/root`)];
  const comm = readFileSync(`/proc/${pid}/comm`, 'latin1').trim();
  const group = groupOf([processOf(pid, { comm, memory, cwdFileId, rootFileId })]);
  return { ...group, files: { ...group.files, files, tables: [{ filesId: pid, descriptors }] } };
}
