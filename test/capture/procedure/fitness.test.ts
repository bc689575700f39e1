import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runningArchitecture } from '../../../src/arch/index.ts';
import { type Applicant, procedureFitness } from '../../../src/capture/procedure/fitness.ts';
import type { UserRead } from '../../../src/linux/readers/user-memory.ts';
import { type CapturedProcedure, recordLayout } from '../../../src/model/crash-procedure.ts';
import type { Process, Thread } from '../../../src/model/process.ts';

const { restorers } = runningArchitecture().signalFrame;
const STACK = 0x10_0000;
const TLS = 0x20_0000;
const RESTORER = 0x40_0000;
const RECORD = 0x50_0000;

interface Changes {
  readonly thread?: Partial<Thread>;
  readonly process?: Partial<Process>;
  readonly sp?: number;
  readonly fsBase?: number;
  readonly state?: number;
  readonly code?: string;
  readonly restorer?: number;
  readonly tlsProt?: number;
  readonly delivery?: 'call' | 'signal';
  readonly isSandboxed?: boolean;
}

function applicant(changes: Changes = {}): Applicant {
  const { sp = 0x7000, fsBase = TLS, state = 0, code = '48c7c00f0000000f05', delivery = 'call' } = changes;
  const { restorer = RESTORER, tlsProt = 3 } = changes;
  const registers = { sp: BigInt(sp), fsBase: BigInt(fsBase) };
  const thread = { tid: 7, registers, rseq: undefined, seccomp: undefined, ...changes.thread };
  const vmas = [{ start: TLS, end: TLS + 0x1000, prot: tlsProt }];
  const process = { pid: 7, state: 'alive', threads: [thread], memory: { vmas }, ...changes.process };
  const header = Buffer.alloc(512);
  header.writeUInt32LE(state, recordLayout.state);
  const call = {
    kind: 'call',
    entry: 0,
    argument: 0n,
    stackBase: STACK,
    stackSizeBytes: 0x8000,
    restorer,
  };
  const procedure = {
    address: RECORD,
    delivery: delivery === 'call' ? call : { kind: 'signal', signal: 12 },
  };
  const bytes = Buffer.from(code, 'hex');
  const read = (address: bigint, length: number): UserRead =>
    Number(address) === restorer && length <= bytes.length
      ? { kind: 'bytes', bytes: bytes.subarray(0, length) }
      : { kind: 'unmapped' };
  return {
    process: process as unknown as Process,
    record: { pid: 7, valid: true, header, procedure, xstateOffsets: [] } as unknown as CapturedProcedure,
    isSandboxed: changes.isSandboxed ?? false,
    user: { read },
    restorers,
  };
}

test('a procedure goes on with the system call of its restorer, in each way of writing that', () => {
  const [long, short, marked] = ['48c7c00f0000000f05', 'b80f0000000f05', 'f30f1efa48c7c00f0000000f05'];
  assert.deepEqual(procedureFitness(applicant({ code: long })), { systemCall: RESTORER + 7 });
  assert.deepEqual(procedureFitness(applicant({ code: short })), { systemCall: RESTORER + 5 });
  assert.deepEqual(procedureFitness(applicant({ code: marked })), { systemCall: RESTORER + 11 });
});

const unfit: readonly [string, Changes, RegExp][] = [
  ['has another restorer', { code: '48c7c00f00000090900f05' }, /restorer by which it could not be ended/],
  ['is called by a signal', { delivery: 'signal' }, /delivered by a signal/],
  ['is in a sandbox', { isSandboxed: true }, /sandbox/],
  ['is stopped', { process: { state: 'stopped' } }, /is stopped/],
  ['was on the stack of its procedure', { sp: STACK + 0x4000 }, /in its crash procedure already/],
  [
    'was in its procedure by its record, its registers being lost',
    { state: 1 },
    /in its crash procedure already/,
  ],
  ['has filters of its calls', { thread: { seccomp: {} as NonNullable<Thread['seccomp']> } }, /seccomp/],
  ['has lost its thread-local storage', { fsBase: TLS + 0x2000 }, /thread-local storage/],
  [
    'has its thread-local storage where memory is lost, which stays taken',
    { tlsProt: 0 },
    /thread-local storage/,
  ],
  ['has its restorer on the stack of its procedure', { restorer: STACK + 0x7ff0 }, /written anew/],
  ['has its restorer begin before that stack', { restorer: STACK - 8 }, /written anew/],
  ['has its restorer in its record', { restorer: RECORD + 0x40 }, /written anew/],
  ['has lost its first thread', { thread: { tid: 8 } }, /first thread/],
];

for (const [name, changes, why] of unfit) {
  test(`a process that ${name} does not come back for its procedure alone`, () => {
    const found = procedureFitness(applicant(changes));
    assert.match(typeof found === 'string' ? found : assert.fail(), why);
  });
}

test('a record that says that its process went on, or was left alone, is no sign of a procedure that runs', () => {
  for (const state of [2, 3, 4]) assert.equal(typeof procedureFitness(applicant({ state })), 'object');
});
