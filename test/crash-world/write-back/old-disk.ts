// A directory of this machine as the disk of a dead system, for the tests of writing back.
import assert from 'node:assert/strict';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileSystemUuid } from '../../../src/crash-world/write-back/identity.ts';
import { WriteBack } from '../../../src/crash-world/write-back/index.ts';
import type { DirectoryIdentity, FileSystemPlace, UnwrittenFile } from '../../../src/model/file.ts';
import type { FileIdentity } from '../../../src/model/open-file.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { inodeGeneration } from '../../../src/system/inode-generation.ts';
import { libcFunction } from '../../../src/system/libc.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';

export const isRoot = process.getuid?.() === 0;

export const setxattr = libcFunction<
  [path: string, name: string, value: Uint8Array, size: number, flags: number]
>('int setxattr(const char *path, const char *name, void *value, size_t size, int flags)');
export const getxattr = libcFunction<[path: string, name: string, value: Uint8Array | null, size: number]>(
  'long getxattr(const char *path, const char *name, void *value, size_t size)',
);
/** A `struct vfs_ns_cap_data` of revision 2: CAP_NET_RAW, effective. */
export const netRaw = Buffer.from('0100000200200000000000000000000000000000', 'hex');

/**
 * Page N of old memory is full of the letter N (`a` is 0); after byte 10 of page 25 and all over page 24
 * there are zeros.
 */
const memory = {
  withView: <T>(physical: number, length: number, use: (bytes: Uint8Array) => T): T =>
    use(
      Uint8Array.from({ length }, (_, i) => {
        const page = Math.floor((physical + i) / PAGE_SIZE);
        if (page === 24 || (page === 25 && (physical + i) % PAGE_SIZE >= 10)) return 0;
        return 97 + page;
      }),
    ),
};
export const page = (address: number, number: number) => ({
  address,
  pages: 1,
  physical: number * PAGE_SIZE,
});

export function withOpen<T>(path: string, use: (fd: number) => T): T {
  const fd = openSync(path, 'r');
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

function directoryAt(path: string): DirectoryIdentity {
  return { inode: statSync(path).ino, generation: withOpen(path, inodeGeneration) ?? 0 };
}

export function placeAt(path: string): FileSystemPlace {
  const uuid = withOpen(path, fileSystemUuid);
  return { magic: statfsSync(path).type, uuid, device: statSync(path).dev };
}

/**
 * An empty disk; `remove` takes it away. It is a real one, where inodes have generations: /tmp can be in
 * memory.
 */
export function oldDisk() {
  const root = mkdtempSync('/var/tmp/write-back-');

  /** A file of the dead system as it lies in `root`, or as it will lie there. */
  function unwritten(
    path: string,
    sizeBytes: number,
    changes: Partial<UnwrittenFile> = {},
    identity: Partial<FileIdentity> = {},
  ): UnwrittenFile {
    const stats = statSync(join(root, path), { throwIfNoEntry: false });
    const above = path
      .split('/')
      .slice(0, -1)
      .map((_, i, names) => join(root, names.slice(0, i + 1).join('/')));
    return {
      path,
      directories: above.map(directoryAt),
      directoryDentry: 0n,
      directoryModifiedNanoseconds: 0n,
      links: 1,
      hasAcl: false,
      fileSystem: placeAt(above.at(-1) ?? root),
      identity: {
        fileSystem: 'ext4',
        onDisk: true,
        inode: stats?.ino ?? 0,
        generation: 0,
        mode: stats?.mode ?? 0o100640,
        uid: process.getuid?.() ?? 0,
        gid: process.getgid?.() ?? 0,
        sizeBytes,
        rdev: 0,
        ...identity,
      },
      sectors: undefined,
      accessedNanoseconds: 1_000_000_000_000_000_001n,
      modifiedNanoseconds: 1_500_000_000_123_456_789n,
      dirty: listedRuns([]),
      clean: listedRuns([]),
      isWhole: false,
      ...changes,
    };
  }

  /** Names that memory has besides those of the files that are written back. */
  const others = new Set<string>();
  /** Writes files back, and collects what became of them. */
  function back(...files: UnwrittenFile[]) {
    const known = new Set([...others, ...files.map(({ path }) => path)]);
    const isNamed = ({ path }: UnwrittenFile, name: string) => known.has(join(dirname(path), name));
    const writeBack = new WriteBack({ memory, isNamed, incident: 'ID', root });
    const notes: string[] = [];
    writeBack.write(files, (note) => notes.push(note));
    const outcomes = files.map((file) => ({ path: file.path, ...writeBack.outcomeOf(file) }));
    return {
      writeBack,
      notes,
      problems: outcomes.flatMap(({ path, problem }) => (problem === undefined ? [] : { path, problem })),
      written: outcomes.flatMap(({ path, bytes }) => (bytes === undefined ? [] : path)),
      bytes: outcomes.reduce((sum, { bytes = 0 }) => sum + bytes, 0),
    };
  }
  const content = (path: string) => readFileSync(join(root, path), 'latin1');
  const put = (path: string, text: string) => writeFileSync(join(root, path), text);
  /** Writes back and expects that nothing comes of it but a problem. */
  function refused(file: UnwrittenFile, problem: RegExp): void {
    const { written, bytes, problems, notes } = back(file);
    assert.deepEqual({ written, bytes }, { written: [], bytes: 0 });
    assert.equal(problems.length, 1);
    assert.deepEqual(notes, [`${file.path} ${problems[0]?.problem}`]);
    assert.match(problems[0]?.problem ?? '', problem);
  }

  return {
    root,
    unwritten,
    others,
    back,
    refused,
    content,
    put,
    remove: () => rmSync(root, { recursive: true }),
  };
}
