import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  closeSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PlannedName } from '../../../../src/criu/images/plan/restore-plan.ts';
import type { Freezer } from '../../../../src/criu/restore/held-process.ts';
import { bindLate } from '../../../../src/criu/restore/own-make/late-names.ts';
import type { StagingDirectory } from '../../../../src/criu/restore/own-make/staging-directory.ts';
import type { GroupResource } from '../../../../src/criu/restore/resource.ts';
import type { FileIdentity } from '../../../../src/model/open-file.ts';
import { SOCK_STREAM } from '../../../../src/system/abi.ts';
import { checked } from '../../../../src/system/libc.ts';
import { AF_UNIX, bind, SOCK_CLOEXEC, socket } from '../../../../src/system/sockets.ts';
import { messageOf } from '../../../../src/system/thrown.ts';

export const USER = 12345;
export const S_IFSOCK = 0o140000;
export const needsRoot = process.geteuid?.() === 0 ? false : 'needs root';

/** Processes of tests sleep: they need not be frozen to be held. */
const freezer: Freezer = { takeOut: () => {}, putBack: () => {}, frozen: async () => {} };

/** What can differ from how sockets are bound. */
export interface Binding {
  readonly remade?: readonly string[];
  readonly stage?: (directory: number) => StagingDirectory;
}

/** A directory that belongs to somebody else than root, and sockets to be bound in it. */
export class OthersDirectory {
  readonly root = realpathSync(mkdtempSync(join(tmpdir(), 'otherworld-late-')));
  readonly path = join(this.root, 'web');
  readonly #fds: number[] = [];
  readonly #children: ChildProcess[] = [];

  constructor() {
    chmodSync(this.root, 0o755);
    mkdirSync(this.path);
    chownSync(this.path, USER, USER + 1);
    chmodSync(this.path, 0o2755);
  }

  end(): void {
    for (const fd of this.#fds) closeSync(fd);
    for (const child of this.#children) child.kill('SIGKILL');
    rmSync(this.root, { recursive: true });
  }

  at(name: string): string {
    return join(this.path, name);
  }

  identityOf(path: string, over: Partial<FileIdentity> = {}): FileIdentity {
    const { mode, uid, gid, ino: inode, size: sizeBytes, rdev } = lstatSync(path);
    const identity = { fileSystem: 'tmpfs', onDisk: false, inode, generation: 0, mode, uid, gid };
    return { ...identity, sizeBytes, rdev, ...over };
  }

  /** Of a socket's file. */
  file(over: Partial<FileIdentity> = {}): FileIdentity {
    return this.identityOf(this.path, { mode: S_IFSOCK | 0o640, uid: USER, gid: USER + 1, ...over });
  }

  /** A socket that is open here. */
  make(type: number = SOCK_STREAM): number {
    const fd = checked('socket', socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    this.#fds.push(fd);
    return fd;
  }

  planned(fd: number, over: Partial<PlannedName> = {}): PlannedName {
    const directory = this.identityOf(this.path);
    const where = { name: this.at('s'), path: this.at('s') };
    return { pid: process.pid, fd, ...where, identity: this.file(), directory, ...over };
  }

  /** The same of a socket that another process has, and that listens. */
  plannedListener(fd: number, over: Partial<PlannedName> = {}): PlannedName {
    const stdio = ['ignore', 'ignore', 'ignore', fd] as const;
    const child = spawn('sleep', ['1000'], { uid: USER, gid: USER + 1, stdio: [...stdio] });
    this.#children.push(child);
    return { ...this.planned(3, over), pid: child.pid ?? assert.fail(), backlog: 5 };
  }

  /** A process in a mount namespace of its own, with a socket as its descriptor 3. @returns its number */
  async sandboxed(fd: number, first: string): Promise<number> {
    const script = `${first} && echo ready && exec sleep 1000`;
    const stdio = ['ignore', 'pipe', 'inherit', fd] as const;
    const child = spawn('unshare', ['--mount', 'sh', '-c', script], { stdio: [...stdio] });
    this.#children.push(child);
    if (child.stdout !== null) await once(child.stdout, 'data');
    return child.pid ?? assert.fail();
  }

  /** Leaves the file of a socket, as a system that died. */
  leave(name: string): void {
    const address = Buffer.concat([Buffer.of(AF_UNIX, 0), Buffer.from(this.at(name)), Buffer.of(0)]);
    checked('bind', bind(this.make(), address, address.length));
  }

  /** Binds sockets. @returns why one could not be, and the names that there are */
  async bind(
    names: readonly PlannedName[],
    { remade = [], stage }: Binding = {},
  ): Promise<{ problems: string[]; resource: GroupResource; left: string[] }> {
    const resource = bindLate(names, new Set(remade), stage);
    const problems: string[] = [];
    await resource.held?.(freezer).catch((error: unknown) => problems.push(messageOf(error)));
    return { problems, resource, left: readdirSync(this.path).toSorted() };
  }
}
