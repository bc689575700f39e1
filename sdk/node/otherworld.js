// SPDX-License-Identifier: Apache-2.0
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { crc32 } from 'node:zlib';

/** The record's layout: docs/crash-procedures.md, and sdk/c/otherworld.h under the same names. */
const SIZE = 16384;
const MAGIC = 0x444c52575248544fn;
const VERSION = 1;
const BY_SIGNAL = 2;
const DELIVERED = 1;
const CONTINUED = 2;
const LOST = 1;
const ITEM_BYTES = 128;
const offset = {
  ...{ version: 8, size: 12, delivery: 16, signal: 24, timeLimit: 28, pid: 72, crc: 156 },
  ...{
    state: 256,
    resurrections: 260,
    panicTime: 264,
    itemCount: 280,
    itemsOmitted: 284,
    id: 296,
    items: 512,
  },
};

const PROT_READ_WRITE = 3;
const MAP_PRIVATE = 2;
const MFD_CLOEXEC = 1;

export class NotRegisteredError extends Error {
  name = 'NotRegisteredError';
}

let registered = false;

export function onKernelCrash(callback, { signal = 'SIGPWR', timeLimitMilliseconds = 0 } = {}) {
  if (registered) throw new NotRegisteredError('onKernelCrash is registered already; take that back first');
  const number = constants.signals[signal];
  if (number === undefined) throw new NotRegisteredError(`${signal} is no signal of this system`);
  const libc = loadLibc();
  const mapping = mapRecord(libc);
  const record = Buffer.from(libc.view(mapping, SIZE));
  const listener = () => deliver(record, callback);
  // Before the record: a signal without a handler would end the process.
  process.on(signal, listener);
  fill(record, number, timeLimitMilliseconds);
  registered = true;
  return () => {
    if (!registered) return;
    registered = false;
    // The mapping stays until the process ends: `record` refers to it. Without its magic it is no record.
    record.fill(0, 0, offset.state);
    process.off(signal, listener);
  };
}

/**
 * The functions of the C library by which a memory file gets mapped: JavaScript itself has no way to do it.
 */
function loadLibc() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new NotRegisteredError(
      `crash procedures exist on Linux on x64, not on ${process.platform} ${process.arch}`,
    );
  }
  let koffi;
  try {
    koffi = createRequire(import.meta.url)('koffi');
  } catch (cause) {
    throw new NotRegisteredError('the library koffi is missing: npm install koffi', { cause });
  }
  const c = koffi.load('libc.so.6');
  return {
    memfdCreate: c.func('int memfd_create(const char *name, unsigned int flags)'),
    ftruncate: c.func('int ftruncate(int fd, long length)'),
    mmap: c.func('void *mmap(void *address, size_t length, int prot, int flags, int fd, long offset)'),
    close: c.func('int close(int fd)'),
    address: (pointer) => koffi.address(pointer),
    view: (pointer, length) => koffi.view(pointer, length),
  };
}

function mapRecord(libc) {
  const fd = libc.memfdCreate('otherworld', MFD_CLOEXEC);
  if (fd < 0) throw new NotRegisteredError('memfd_create(2) failed');
  const sized = libc.ftruncate(fd, SIZE) === 0;
  const mapping = sized ? libc.mmap(null, SIZE, PROT_READ_WRITE, MAP_PRIVATE, fd, 0) : null;
  libc.close(fd);
  const failed = mapping === null || BigInt.asIntN(64, BigInt(libc.address(mapping))) === -1n;
  if (failed) throw new NotRegisteredError('the record could not be mapped');
  return mapping;
}

function fill(record, signal, timeLimitMilliseconds) {
  record.writeUInt32LE(VERSION, offset.version);
  record.writeUInt32LE(SIZE, offset.size);
  record.writeUInt32LE(BY_SIGNAL, offset.delivery);
  record.writeUInt32LE(signal, offset.signal);
  record.writeUInt32LE(timeLimitMilliseconds, offset.timeLimit);
  record.writeUInt32LE(process.pid, offset.pid);
  record.writeBigUInt64LE(MAGIC, 0);
  record.writeUInt32LE(crc32(record.subarray(0, offset.crc)), offset.crc);
}

/** The signal may have come from anybody: only the record tells that the kernel died. */
async function deliver(record, callback) {
  if (record.readUInt32LE(offset.state) !== DELIVERED) return;
  await callback(readIncident(record));
  record.writeUInt32LE(CONTINUED, offset.state);
}

function readIncident(record) {
  const count = Math.min(record.readUInt32LE(offset.itemCount), (SIZE - offset.items) / ITEM_BYTES);
  const items = Array.from({ length: count }, (_, index) =>
    readItem(record, offset.items + index * ITEM_BYTES),
  );
  const of = (wanted) => items.filter(({ lost }) => lost === wanted).map(({ lost, ...item }) => item);
  return {
    id: readText(record, offset.id, 64),
    panicTime: new Date(Number(record.readBigInt64LE(offset.panicTime) / 1_000_000n)),
    resurrections: record.readUInt32LE(offset.resurrections),
    lost: of(true),
    inDoubt: of(false),
    itemsOmitted: record.readUInt32LE(offset.itemsOmitted),
  };
}

function readItem(record, at) {
  const fd = record.readInt32LE(at + 4);
  const tid = record.readInt32LE(at + 8);
  return {
    lost: record.readUInt32LE(at) === LOST,
    fd: fd < 0 ? undefined : fd,
    tid: tid === 0 ? undefined : tid,
    what: readText(record, at + 16, ITEM_BYTES - 16),
  };
}

function readText(record, at, room) {
  const end = record.indexOf(0, at);
  return record.toString('utf8', at, end < 0 || end > at + room ? at + room : end);
}
