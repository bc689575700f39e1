// Writes images of files and reads them with CRIU's own tool.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { writeDeletedFiles } from '../../../../src/criu/images/files/deleted.ts';
import { writeFileImages } from '../../../../src/criu/images/files/index.ts';
import { ImageDirectory, type PageSource } from '../../../../src/criu/images/image.ts';
import {
  DELETED_CONTENT,
  DELETED_FILES,
  deletedFilesSchema,
  handedInAs,
} from '../../../../src/criu/images/plan/deleted-files.ts';
import { type FifoFile, type GroupFiles, noFiles } from '../../../../src/model/file.ts';
import type { FileIdentity, PathFile } from '../../../../src/model/open-file.ts';
import { listedRuns } from '../../../../src/model/page-runs.ts';
import type { InetSocket, SocketOptions, TcpConnection, UnixSocket } from '../../../../src/model/socket.ts';
import type { Terminal } from '../../../../src/model/terminal.ts';
import { Crit } from '../../crit.ts';

/** Old memory that holds the letters of the alphabet over and over. */
const source: PageSource = {
  writeRuns: (fd, runs) =>
    runs.reduce((sum, { physical, length }) => {
      const bytes = Buffer.from(Array.from({ length }, (_, i) => 97 + ((physical + i) % 26)));
      return sum + writeSync(fd, bytes);
    }, 0),
};

const owner = { uid: 0, euid: 0, signal: 0, pidType: 0, pid: 0 };
const identity: FileIdentity = {
  fileSystem: 'ext4',
  onDisk: true,
  inode: 12,
  generation: 3,
  mode: 0o100644,
  uid: 1,
  gid: 2,
  sizeBytes: 4100,
  rdev: 0,
};
const options: SocketOptions = {
  sendBufferBytes: 1,
  receiveBufferBytes: 2,
  bufferLock: 0,
  sendTimeoutMicroseconds: 0,
  receiveTimeoutMicroseconds: 3_500_000,
  reuseAddress: true,
  reusePort: false,
  priority: 0,
  receiveLowWatermark: 1,
  mark: 0,
  passCredentials: false,
  passSecurity: false,
  dontRoute: false,
  noCheck: false,
  broadcast: false,
  keepAlive: true,
  oobInline: false,
  lingerSeconds: 5,
  boundDevice: undefined,
  filter: [],
};
const socket = { owner, flags: 2, inode: 77, uid: 0, gid: 0, options, lateOptions: [], shutdown: 0 as const };

/** That listens. */
const inetSocket: InetSocket = {
  ...socket,
  type: 'inet',
  id: 3,
  socketType: 1,
  state: 10,
  family: 2,
  protocol: 6,
  sourceAddress: Uint8Array.of(10, 0, 2, 15),
  sourcePort: 6379,
  destinationAddress: new Uint8Array(4),
  destinationPort: 0,
  backlog: 511,
  broken: undefined,
  v6only: false,
  freebind: false,
  pktinfo: false,
  tos: 0,
  ttl: 0,
  interfaceName: undefined,
  options: { ...options, filter: [0x0000ffff_02_01_0006n] },
  tcp: { cork: false, nodelay: true, keepCount: 3, keepIdleSeconds: 60, keepIntervalSeconds: undefined },
  connection: undefined,
  connecting: undefined,
};

function pathFile(changes: Partial<PathFile>): PathFile {
  return {
    type: 'path',
    id: 1,
    flags: 0o2,
    owner,
    path: '/f',
    position: 9n,
    identity,
    ghostId: undefined,
    ...changes,
  };
}

suite('images of files', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'images-'));
  const crit = new Crit();
  after(() => {
    crit[Symbol.dispose]();
    rmSync(scratch, { recursive: true });
  });
  let number = 0;

  /** Entries of an image, as `crit decode` shows them. */
  async function decoded(files: Partial<GroupFiles>, image: string): Promise<Record<string, unknown>[]> {
    const images = new ImageDirectory(join(scratch, String(number++)));
    writeFileImages({ ...noFiles, ...files }, images, source);
    images.close();
    return await crit.decode(join(images.path, `${image}.img`), '--pretty');
  }

  /** The part of an entry that is about its kind of file. */
  async function fileEntry(file: GroupFiles['files'][number], key: string): Promise<Record<string, unknown>> {
    const [entry] = await decoded({ files: [file] }, 'files');
    return Object.fromEntries(Object.entries(Object(entry?.[key])));
  }

  test('a path, its offset and its flags without close-on-exec', async () => {
    const { name, pos, mode, flags } = await fileEntry(pathFile({ flags: 0o2002002 }), 'reg');
    assert.deepEqual({ name, pos, mode }, { name: '/f', pos: 9, mode: 0o100644 });
    assert.doesNotMatch(String(flags), /CLOEXEC|0x80000/);
  });

  test('a descriptor with its type and close-on-exec', async () => {
    const tables = [{ filesId: 4, descriptors: [{ fd: 7, fileId: 1, closeOnExec: true }] }];
    assert.deepEqual(await decoded({ files: [pathFile({})], tables }, 'fdinfo-4'), [
      { id: 1, flags: 1, type: 'REG', fd: 7 },
    ]);
  });

  test('a deleted file as a ghost in chunks, cut at its size', async () => {
    const ghosts = [
      {
        id: 42,
        identity,
        accessedMicroseconds: 1_500_000,
        modifiedMicroseconds: -5,
        runs: listedRuns([{ address: 4096, pages: 1, physical: 0 }]),
      },
    ];
    const files = { files: [pathFile({ ghostId: 42 })], ghosts };
    const [head, chunk] = await decoded(files, 'ghost-file-2a');
    assert.deepEqual(head?.atim, { tv_sec: 1, tv_usec: 500000 });
    assert.deepEqual(head?.mtim, { tv_sec: 0, tv_usec: 0 });
    assert.deepEqual([head?.chunks, head?.size, head?.uid], [true, 4100, 1]);
    assert.deepEqual(
      [chunk?.len, chunk?.off, Buffer.from(String(chunk?.extra), 'base64').toString()],
      [4, 4096, 'abcd'],
    );
    assert.deepEqual(await decoded(files, 'remap-fpath'), [
      { orig_id: 1, remap_id: 42, remap_type: 'GHOST' },
    ]);
  });

  test('a deleted file that CRIU is handed as one that it opens through a descriptor, with no ghost', async () => {
    const path = join(scratch, 'of-handed-in');
    writeFileSync(path, `${'a'.repeat(4096)}copy`);
    const ownMake = { path: '/tmp/x', identity, directory: identity };
    const ghost = {
      ...{ id: 42, identity, accessedMicroseconds: 1, modifiedMicroseconds: 2, ownMake },
      runs: listedRuns([{ address: 0, pages: 1, physical: 0 }]),
      onDisk: { path, inode: statSync(path).ino, ranges: [{ offset: 4096, length: 4 }] },
    };
    const file = pathFile({ flags: 0o400002, ghostId: 42, isOwnMake: true });
    const files = { ...noFiles, files: [file], ghosts: [ghost] };
    const { name, ext, pos, flags } = await fileEntry(file, 'reg');
    assert.deepEqual([name, ext, pos], [handedInAs(42), true, 9]);
    assert.doesNotMatch(String(flags), /NOFOLLOW|0x20000/);
    const images = new ImageDirectory(join(scratch, String(number++)));
    writeFileImages(files, images, source);
    writeDeletedFiles(files, images, source);
    images.close();
    assert.deepEqual(
      readdirSync(images.path).filter((one) => /ghost|remap|deleted/.test(one)),
      [DELETED_FILES, DELETED_CONTENT],
    );
    const [plan] = deletedFilesSchema.parse(
      JSON.parse(readFileSync(join(images.path, DELETED_FILES), 'utf8')),
    );
    assert.deepEqual(plan?.chunks, [
      { offset: 0, length: 4096 },
      { offset: 4096, length: 4 },
    ]);
    assert.equal(readFileSync(join(images.path, DELETED_CONTENT)).subarray(4096).toString(), 'copy');
  });

  test('of a deleted file what is in no memory, out of its copy on a disk', async () => {
    const path = join(scratch, 'copy');
    writeFileSync(path, `${'a'.repeat(4096)}copy`);
    const ghost = {
      id: 42,
      identity,
      accessedMicroseconds: 0,
      modifiedMicroseconds: 0,
      runs: listedRuns([{ address: 0, pages: 1, physical: 0 }]),
    };
    const written = (inode: number) => {
      const onDisk = { path, inode, ranges: [{ offset: 4096, length: 4 }] };
      const files = { files: [pathFile({ ghostId: 42 })], ghosts: [{ ...ghost, onDisk }] };
      return decoded(files, 'ghost-file-2a');
    };
    const { ino } = statSync(path);
    const [, memory, disk] = await written(ino);
    assert.deepEqual([memory?.off, memory?.len, disk?.off, disk?.len], [0, 4096, 4096, 4]);
    assert.equal(Buffer.from(String(disk?.extra), 'base64').toString(), 'copy');
    await assert.rejects(written(ino + 1), /copy is another file now/);
  });

  test('a FIFO that waits for its first writer as a file, so that CRIU opens it without one', async () => {
    const named = pathFile({ id: 6, path: '/fifo', position: undefined });
    const fifo = { type: 'fifo', id: 5, flags: 0o100000, owner, pipeId: 3, pathFile: named } as const;
    const waiting = { ...fifo, waitsForWriter: true };
    const tables = [{ filesId: 4, descriptors: [{ fd: 7, fileId: 5, closeOnExec: false }] }];
    const kinds = async (file: FifoFile) =>
      (await decoded({ files: [file] }, 'files')).map(({ type, id }) => [type, id]);
    assert.deepEqual(await kinds(waiting), [['REG', 5]]);
    assert.deepEqual(await kinds({ ...fifo, waitsForWriter: false }), [
      ['REG', 6],
      ['FIFO', 5],
    ]);
    const { name, pos, flags } = await fileEntry(waiting, 'reg');
    assert.equal(name, '/fifo');
    assert.ok(pos === -1 || Number(pos) === 2 ** 64, `${pos}`);
    assert.match(String(flags), /NONBLOCK|0x8800/);
    assert.deepEqual(await decoded({ files: [waiting], tables }, 'fdinfo-4'), [
      { id: 5, flags: 0, type: 'REG', fd: 7 },
    ]);
  });

  test('the content of a pipe after its size', async () => {
    const pipes = [
      { id: 5, named: false, capacityBytes: 65536, data: [{ physical: 1, length: 3 }], dataBytes: 3 },
    ];
    const [entry] = await decoded({ pipes }, 'pipes-data');
    assert.deepEqual([entry?.pipe_id, entry?.bytes, entry?.size], [5, 3, 65536]);
    assert.equal(Buffer.from(String(entry?.extra), 'base64').toString(), 'bcd');
  });

  test('a unix socket whose path ends with a zero byte, and its queue', async () => {
    const unix: UnixSocket = {
      ...socket,
      type: 'unix',
      id: 3,
      socketType: 1,
      state: 10,
      backlog: 5,
      peerInode: 0,
      name: Buffer.from('/run/s'),
      nameDirectory: undefined,
      file: { mode: 0o140640, uid: 0, gid: 0 },
      deleted: false,
      ownMake: undefined,
      queue: [{ data: [{ physical: 0, length: 2 }], bytes: 2 }],
      journal: undefined,
    };
    const { name, state, backlog, file_perms } = await fileEntry(unix, 'usk');
    assert.deepEqual(
      { name, state, backlog, file_perms },
      { name: '/run/s=00', state: 'LISTEN', backlog: 5, file_perms: { mode: 0o140640, uid: 0, gid: 0 } },
    );
    const [packet] = await decoded({ files: [unix] }, 'sk-queues');
    assert.deepEqual([packet?.id_for, packet?.length], [3, 2]);
  });

  test('a unix socket that is bound late as one that has no name, and does not listen yet', async () => {
    const directory = { ...identity, mode: 0o40755, uid: 5, gid: 6 };
    const unix: UnixSocket = {
      ...socket,
      ...{ type: 'unix', id: 3, socketType: 1, state: 10, backlog: 5, peerInode: 0, name: Buffer.from('s') },
      ...{ nameDirectory: '/run/web', file: { mode: 0o140640, uid: 5, gid: 6 }, deleted: false, queue: [] },
      ...{ ownMake: { path: '/run/web/s', identity, directory }, journal: undefined },
    };
    const { name, name_dir, state, backlog, file_perms } = await fileEntry(unix, 'usk');
    assert.deepEqual([name, name_dir, state, backlog, file_perms], ['', undefined, 'CLOSE', 0, undefined]);
  });

  test('a unix socket after the one that it is connected to, which is not looked for among later ones', async () => {
    const unix = (id: number, peer: number): UnixSocket => ({
      ...{ type: 'unix', ...socket, id, inode: 100 + id, socketType: 2, state: 7, backlog: 0 },
      ...{ peerInode: peer === 0 ? 0 : 100 + peer, name: new Uint8Array(), nameDirectory: undefined },
      ...{ file: undefined, deleted: false, ownMake: undefined, queue: [], journal: undefined },
    });
    const order = async (...files: readonly UnixSocket[]) =>
      (await decoded({ files }, 'files')).map(({ id }) => id);
    assert.deepEqual(await order(unix(1, 2), unix(2, 0), unix(3, 2)), [2, 1, 3]);
    assert.deepEqual(await order(unix(1, 2), unix(2, 3), unix(3, 0)), [3, 2, 1]);
    assert.deepEqual((await order(unix(1, 1), unix(2, 3), unix(3, 2))).toSorted(), [1, 2, 3]);
    assert.deepEqual(await order(unix(1, 9)), [1]);
  });

  test('an IPv4 socket with its address, options and time limits', async () => {
    const { src_addr, src_port, proto, state, opts } = await fileEntry(inetSocket, 'isk');
    assert.deepEqual([src_addr, src_port, proto, state], [['10.0.2.15'], 6379, 'TCP', 'LISTEN']);
    const { so_rcv_tmo_sec, so_rcv_tmo_usec, so_linger, tcp_keepcnt, so_filter } = Object(opts);
    // code 6, jt 1, jf 2, k 0xffff: the other way round in the image.
    assert.deepEqual(so_filter.map(BigInt), [0x0006_01_02_0000ffffn]);
    assert.deepEqual([so_rcv_tmo_sec, so_rcv_tmo_usec, so_linger, tcp_keepcnt], [3, 500000, 5, 3]);
  });

  test('a TCP connection with its numbers and options, and what is in its queues behind them', async () => {
    const connection: TcpConnection = {
      receivedTo: 100,
      unread: { data: [{ physical: 0, length: 3 }], bytes: 3 },
      writtenTo: 200,
      unacknowledged: {
        data: [
          { physical: 5, length: 2 },
          { physical: 9, length: 4 },
        ],
        bytes: 6,
      },
      unsentBytes: 4,
      mssClamp: 1460,
      hasSelectiveAcks: true,
      scale: { send: 7, receive: 9 },
      timestamp: 0xffff_fffe,
      window: { sendUpdate: 1, send: 2, largest: 3, receive: 4, receiveUpdate: 5 },
    };
    const inet = { ...inetSocket, inode: 0x1f2, state: 8, destinationPort: 5432, connection } as const;
    const [entry] = await decoded({ files: [inet] }, 'tcp-stream-1f2');
    const { extra, ...numbers } = entry ?? {};
    assert.deepEqual(numbers, {
      ...{ inq_len: 3, inq_seq: 100, outq_len: 6, outq_seq: 200, unsq_len: 4 },
      ...{ opt_mask: '0x7', snd_wscale: 7, rcv_wscale: 9, mss_clamp: 1460, timestamp: 0xffff_fffe },
      ...{ snd_wl1: 1, snd_wnd: 2, max_window: 3, rcv_wnd: 4, rcv_wup: 5 },
    });
    const [unscaled] = await decoded(
      { files: [{ ...inet, connection: { ...connection, scale: undefined, timestamp: undefined } }] },
      'tcp-stream-1f2',
    );
    const { opt_mask, snd_wscale, rcv_wscale } = unscaled ?? {};
    assert.deepEqual([opt_mask, snd_wscale, rcv_wscale], ['0x6', 0, 0]);
    const [unread, sent] = ['inq', 'outq'].map((key) => Buffer.from(Object(extra)[key], 'base64').toString());
    assert.deepEqual([unread, sent], ['abc', 'fgjklm']);
  });

  test('a terminal with its control characters four to a word', async () => {
    const termios = {
      iflag: 1,
      oflag: 2,
      cflag: 3,
      lflag: 4,
      line: 0,
      cc: Uint8Array.from({ length: 19 }, (_, i) => i),
    };
    const terminal: Terminal = {
      id: 9,
      kind: 'pty-master',
      ptyIndex: 3,
      locked: false,
      exclusive: false,
      packetMode: true,
      session: 100,
      foregroundGroup: 101,
      rdev: 0x502,
      device: 6,
      uid: 0,
      gid: 5,
      settings: {
        termios,
        lockedTermios: termios,
        windowSize: { rows: 24, columns: 80, xPixels: 0, yPixels: 0 },
      },
      unread: Buffer.from('hi'),
    };
    const [info] = await decoded({ terminals: [terminal] }, 'tty-info');
    assert.deepEqual(
      [info?.id, info?.type, info?.sid, info?.pgrp, info?.packet_mode],
      [7, 'PTY', 100, 101, true],
    );
    const { c_cc: words } = Object(info?.termios);
    assert.equal(words.length, 19);
    assert.deepEqual(words.slice(0, 6), [0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c, 0x00121110, 0]);
    assert.equal((await decoded({ terminals: [terminal] }, 'tty-data'))[0]?.tty_id, 7);
  });
});
