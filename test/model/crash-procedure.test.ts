import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import {
  parseCrashProcedure,
  recordHeaderBytes,
  recordLayout,
  recordSizeBytes,
} from '../../src/model/crash-procedure.ts';
import { itemCapacity, readProcedureState, writeIncident } from '../../src/model/procedure-incident.ts';

const address = 0x7f00_0000_0000;
const text = 0x5555_0000_0000;
const stack = 0x7f00_1000_0000;
const handlers = Array.from({ length: 64 }, (_, index) => ({
  handler: index === 11 ? 0x5555_0000_0100n : 0n,
}));
const owner = {
  pid: 4711,
  vmas: [
    { start: text, end: text + 0x2000, prot: 5 },
    { start: text + 0x2000, end: text + 0x3000, prot: 1 },
    { start: address, end: address + recordSizeBytes, prot: 3 },
    { start: stack, end: stack + 0x8000, prot: 3 },
    { start: stack + 0x8000, end: stack + 0x10000, prot: 3 },
    { start: stack + 0x10000, end: stack + 0x20000, prot: 1 },
  ],
  sigactions: handlers,
};

type FieldValues = Partial<Record<keyof typeof recordLayout, number>> & {
  magic?: bigint;
  brokenCrc?: boolean;
};

const wide = new Set(['entry', 'argument', 'stack_base', 'stack_size', 'restorer']);

/** A good record for delivery by call, with some fields changed, and the checksum made right again. */
function record(changes: FieldValues = {}): Buffer {
  const { magic = 0x444c52575248544fn, brokenCrc = false, ...fields } = changes;
  const good: FieldValues = {
    ...{ version: 1, size: recordSizeBytes, delivery: 1, pid: owner.pid, entry: text + 0x10, argument: 42 },
    ...{ stack_base: stack, stack_size: 0x10000, restorer: text + 0x1fff },
  };
  const bytes = Buffer.alloc(recordSizeBytes);
  bytes.writeBigUInt64LE(magic);
  for (const [name, value] of Object.entries({ ...good, ...fields })) {
    const offset = recordLayout[name as keyof typeof recordLayout];
    if (wide.has(name)) bytes.writeBigUInt64LE(BigInt(value), offset);
    else bytes.writeUInt32LE(Number(value), offset);
  }
  bytes.writeUInt32LE(
    (crc32(bytes.subarray(0, recordLayout.crc)) ^ (brokenCrc ? 1 : 0)) >>> 0,
    recordLayout.crc,
  );
  return bytes;
}

test('a good record is a procedure', () => {
  assert.deepEqual(parseCrashProcedure(record({ time_limit_milliseconds: 1500 }), address, owner), {
    valid: true,
    procedure: {
      ...{ address, timeLimitMilliseconds: 1500, resurrections: 0 },
      delivery: {
        ...{ kind: 'call', entry: text + 0x10, argument: 42n, restorer: text + 0x1fff },
        ...{ stackBase: stack, stackSizeBytes: 0x10000 },
      },
    },
  });
});

test('a signal that the process handles needs no stack and no entry point', () => {
  const bytes = record({ delivery: 2, signal: 12, entry: 0, stack_base: 0, stack_size: 0, restorer: 0 });
  const parsed = parseCrashProcedure(bytes, address, owner);
  assert.deepEqual(parsed.valid && parsed.procedure.delivery, { kind: 'signal', signal: 12 });
});

const faults: readonly [string, FieldValues, RegExp][] = [
  ['no magic number', { magic: 1n }, /magic/],
  ['a wrong checksum', { brokenCrc: true }, /checksum/],
  ['an unknown version', { version: 2 }, /version 2/],
  ['another size', { size: 4096 }, /4096/],
  ['unknown flags', { flags: 8 }, /flags 0x8/],
  ['another registrant', { pid: 1 }, /process 1 and inherited/],
  ['an unknown delivery', { delivery: 3 }, /delivery 3/],
  ['an entry point in data', { entry: stack }, /entry point .* outside executable/],
  ['an entry point in read-only memory', { entry: text + 0x2000 }, /entry point/],
  ['an entry point nowhere', { entry: 8 }, /entry point/],
  ['an entry point past 2^53', { entry: 2 ** 60 }, /entry point/],
  ['a restorer in data', { restorer: address }, /restorer/],
  ['a small stack', { stack_size: 0x7000 }, /at least 32768/],
  ['half a page of stack', { stack_size: 0x8800 }, /whole pages/],
  ['a stack that is partly read-only', { stack_size: 0x18000 }, /not writable/],
  ['a stack that is not mapped', { stack_base: 0x1000 }, /not writable/],
  ['a stack of all memory', { stack_size: 2 ** 53 - 4096 }, /not writable/],
  ['signal 0', { delivery: 2, signal: 0 }, /signal 0/],
  ['SIGKILL', { delivery: 2, signal: 9 }, /signal 9/],
  ['signal 65', { delivery: 2, signal: 65 }, /signal 65/],
  ['a signal without a handler', { delivery: 2, signal: 10 }, /no handler/],
];

for (const [name, changes, reason] of faults) {
  test(`a record with ${name} is ignored, with the reason`, () => {
    const parsed = parseCrashProcedure(record(changes), address, owner);
    assert.equal(parsed.valid, false);
    assert.match(parsed.valid ? '' : parsed.reason, reason);
  });
}

test('a record that is mapped read-only or over its own stack is ignored', () => {
  const readOnly = {
    ...owner,
    vmas: owner.vmas.map((vma) => (vma.start === address ? { ...vma, prot: 1 } : vma)),
  };
  const parsed = parseCrashProcedure(record(), address, readOnly);
  assert.match(parsed.valid ? '' : parsed.reason, /not mapped readable and writable/);
  const over = parseCrashProcedure(record(), stack + 0x4000, owner);
  assert.match(over.valid ? '' : over.reason, /over itself/);
});

test('no damage to the header passes, whatever bit it hits', () => {
  for (let bit = 0; bit < 8 * recordHeaderBytes; bit++) {
    const bytes = record();
    bytes.writeUInt8((bytes.at(bit >> 3) ?? 0) ^ (1 << (bit & 7)), bit >> 3);
    assert.equal(parseCrashProcedure(bytes, address, owner).valid, false, `bit ${bit}`);
  }
});

test('a record says whether its process may continue', () => {
  const parsed = parseCrashProcedure(record(), address, owner);
  assert.ok(parsed.valid);
  const incident = { id: 'x', panicTimeNanoseconds: 0n, interruptedSyscall: undefined, items: [] };
  const restrictions = [true, false].map((mayContinue) =>
    Buffer.from(writeIncident(record(), parsed.procedure, { ...incident, mayContinue }, 0)).readUInt32LE(
      recordLayout.restrictions,
    ),
  );
  assert.deepEqual(restrictions, [0, 1]);
});

test('a record that is cut off is ignored, at any length', () => {
  for (let length = 0; length < recordLayout.panic_time_nanoseconds; length++) {
    assert.equal(parseCrashProcedure(record().subarray(0, length), address, owner).valid, false);
  }
});

test('the incident counts resurrections and says how many items found no room', () => {
  const bytes = record({ resurrections: 2 });
  const parsed = parseCrashProcedure(bytes, address, owner);
  assert.ok(parsed.valid);
  const item = { kind: 'lost', fd: 3, tid: undefined, what: `${'ü'.repeat(60)}` } as const;
  const incident = {
    ...{ id: 'x'.repeat(70), panicTimeNanoseconds: -1n, interruptedSyscall: 'read', mayContinue: true },
    items: Array.from({ length: itemCapacity + 2 }, () => item),
  };
  const written = Buffer.from(writeIncident(bytes, parsed.procedure, incident, 0x1234));
  assert.equal(written.length, recordSizeBytes);
  assert.deepEqual(written.subarray(0, 256), bytes.subarray(0, 256));
  assert.equal(written.readUInt32LE(recordLayout.resurrections), 3);
  assert.equal(written.readUInt32LE(recordLayout.item_count), itemCapacity);
  assert.equal(written.readUInt32LE(recordLayout.items_omitted), 2);
  assert.equal(written.toString('utf8', recordLayout.id, recordLayout.id + 64), `${'x'.repeat(63)}\0`);
  const what = recordLayout.items + recordLayout.what;
  assert.equal(written.toString('utf8', what, what + 112), `${'ü'.repeat(55)}\0\0`);
  assert.deepEqual(readProcedureState(written), { state: 'delivered', exitStatus: 0 });
});
