import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import type { StageZeroCpu, StageZeroInputs } from '../../src/stage-zero/area.ts';
import { symbols } from '../../src/stage-zero/code.ts';
import { type StageZeroResult, savedState } from '../../src/stage-zero/saved.ts';
import { MadeArea, madeInputs } from './made-area.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-run-'));
const program = join(directory, 'run');
execFileSync('gcc', [
  ...['-O1', '-Wall', '-Wextra', '-Werror', '-Wno-clobbered', '-o', program],
  join(import.meta.dirname, 'run.c'),
]);
after(() => rmSync(directory, { recursive: true }));

const TEXT = 0x0d12_3456;
const LOW = 0x2_0000;
const XAPIC = '0xfee00900';
const X2APIC = '0xfee00d00';
const NO_APIC = '0xfee00100';
/** What the run has as CR3 and CR4, with which the crash kernel has to be entered. */
const ENTERED = 'kernel rsi=6d000000 zeros=1 cr3=1a2b000 cr4=1020';

/** The processors of the machine that the test runs on, as a process sees them. */
const machine = execFileSync(program, ['ids'], { encoding: 'latin1' }).trimEnd().split('\n').map(Number);

/** Ids that none of them has. */
const [BOOT = 0, FIRST = 0, SECOND = 0] = Array.from({ length: 250 }, (_, i) => 249 - i).filter(
  (id) => !machine.includes(id),
);

/**
 * A table with whichever processor the test runs on: those of the machine, and all that have 8 bits, because
 * a virtual machine that leaves CPUID to the host's processor may show others from one moment to the next.
 */
function anyProcessor(): StageZeroCpu[] {
  const ids = new Set([...machine, ...Array.from({ length: 256 }, (_, id) => id)]);
  return [...ids].map((apicId) => ({ apicId, isBoot: false }));
}

interface Run {
  readonly lines: readonly string[];
  readonly area: MadeArea;
  readonly result: StageZeroResult | undefined;
}

interface Setting {
  readonly inputs?: Partial<StageZeroInputs>;
  readonly apicBase?: string;
  /** `s`: no processor answers; `n`: an NMI comes in. */
  readonly how?: string;
  readonly damage?: (area: MadeArea) => void;
  /** Offset of the code that runs. */
  readonly entry?: number;
  readonly cr4?: string;
}

/** Runs stage zero as a process. */
function run({
  inputs = {},
  apicBase = X2APIC,
  how = '-',
  damage,
  entry = 0,
  cr4 = '0x1020',
}: Setting = {}): Run {
  const page = Buffer.alloc(4096);
  page[0x200] = 0xfa;
  const area = new MadeArea(
    madeInputs({
      cpus: [BOOT, FIRST, SECOND].map((apicId) => ({ apicId, isBoot: apicId === BOOT })),
      xsaveBytes: 11_072,
      loaded: [{ address: 0x6b00_0000, bytes: page }],
      lowMemory: LOW,
      haltText: { physical: TEXT, virtual: 0xffff_ffff_8112_3456n },
      answerTicks: 40_000_000,
      ...inputs,
    }),
  );
  damage?.(area);
  const [input, output] = [join(directory, 'area'), join(directory, 'after')];
  writeFileSync(input, area.bytes);
  const numbers = [area.inputs.address, area.bytes.length, LOW, TEXT].map(String);
  const gate = String(symbols.gates + 2 * 8);
  const env = { ...process.env, GATE: gate, ENTRY: String(entry), CR4: cr4 };
  const text = execFileSync(program, [input, ...numbers, apicBase, output, how], { encoding: 'latin1', env });
  area.bytes.set(readFileSync(output));
  return { lines: text.trimEnd().split('\n'), area, result: savedState(area.notes, area) };
}

suite('stage zero, run as a process,', () => {
  for (const [name, apicBase] of [
    ['x2APIC', X2APIC],
    ['xAPIC', XAPIC],
  ] as const) {
    test(`calls the other processors by ${name}, puts everything back and enters the crash kernel`, () => {
      const { lines, result } = run({ apicBase });
      assert.deepEqual(lines, [
        ...[
          `send 4500 to ${FIRST}`,
          `send 4500 to ${SECOND}`,
          `send 4620 to ${FIRST}`,
          `send 4620 to ${SECOND}`,
        ],
        ...[`send 4200 to ${BOOT}`, ENTERED],
      ]);
      assert.equal(result?.phase, 'done');
      assert.equal(result.missing, 0);
      assert.ok((result.ticks ?? 0) > 0);
    });
  }

  test('calls once more who does not answer, for as long as is allowed, and has them wait then', () => {
    // So long that a busy machine does not take it all away.
    const answerTicks = 1_000_000_000;
    const { lines, result } = run({ how: 's', inputs: { answerTicks } });
    const others = (command: string): string[] => [FIRST, SECOND].map((id) => `send ${command} to ${id}`);
    assert.deepEqual(lines, [
      ...[...others('4500'), ...others('4620'), ...others('4620'), ...others('4500')],
      ...[`send 4200 to ${BOOT}`, `send 4200 to ${BOOT}`, ENTERED],
    ]);
    assert.equal(result?.missing, 3);
    assert.equal(result.phase, 'done');
    // And a while passes before the pages are put back that they may be in.
    assert.ok(Number(result.ticks) >= 2.125 * answerTicks, `${result.ticks} ticks`);
  });

  test('calls nobody by an id that the xAPIC has no room for, and waits for nobody there', () => {
    const ids = [BOOT, FIRST, 255, 256, 456];
    const cpus = ids.map((apicId) => ({ apicId, isBoot: apicId === BOOT }));
    const sent = [`send 4500 to ${FIRST}`, `send 4620 to ${FIRST}`, `send 4200 to ${BOOT}`, ENTERED];
    const { lines, result } = run({ inputs: { cpus }, apicBase: XAPIC });
    assert.deepEqual(lines, sent);
    assert.equal(result?.missing, 0);
    assert.ok(run({ inputs: { cpus } }).lines.includes('send 4500 to 256'));
  });

  test('calls nobody without a local APIC, low memory or the text that halts', () => {
    assert.deepEqual(run({ apicBase: NO_APIC }).lines, [ENTERED]);
    assert.deepEqual(run({ inputs: { lowMemory: undefined, haltText: undefined } }).lines, [ENTERED]);
  });

  test('saves the registers of the processor that it runs on', () => {
    const cpus = anyProcessor();
    const { lines, result, area } = run({ inputs: { cpus, lowMemory: undefined } });
    assert.equal(lines.at(-1), ENTERED);
    assert.deepEqual(result?.problems, []);
    const [saved, ...others] = result.cpus.values();
    assert.ok(saved !== undefined && others.length === 0);
    assert.equal(saved.kernelGsBase, 0x7fff_1234_5000n);
    assert.equal(saved.xcr0 & 3n, 3n);
    const XMM15 = 160 + 15 * 16;
    assert.equal(saved.xsave.readBigUInt64LE(XMM15), 0x1122_3344_5566_7788n);
    const own = area.bytes.readUInt32LE(area.offset(symbols.STATE) + symbols.STATE_APIC_ID);
    assert.equal(own, saved.apicId);
  });

  for (const [what, entry] of [
    ['was started', symbols.started],
    ['was halted', symbols.halted],
  ] as const) {
    test(`has a processor that ${what} save its registers and wait`, () => {
      const cpus = anyProcessor();
      // Of a kernel with FRED, CET and much else; a started processor has what the low pages' code has set.
      const cr4 = entry === symbols.halted ? '0x100f70ef0' : '0x40620';
      const { lines, result, area } = run({ inputs: { cpus }, entry, cr4 });
      assert.deepEqual(lines, [`parked cr4=${entry === symbols.halted ? '770ef0' : '40620'}`]);
      assert.equal(result?.cpus.size, 1);
      assert.equal(result.phase, 'not entered');
      // All of them run at once: none writes to a stack.
      const end = area.offset(symbols.PARKED_STACK);
      assert.ok(area.bytes.subarray(end - 4096, end).every((byte) => byte === 0));
    });
  }

  test('parks a processor that is not in its table', () => {
    const { lines, result } = run({ entry: symbols.started });
    assert.deepEqual([lines, result?.cpus.size], [['parked cr4=1020'], 0]);
  });

  test('goes on into the crash kernel at once if anything of it is damaged', () => {
    for (const at of [
      symbols.CONSTANTS + symbols.SEALED_BYTES + 7,
      symbols.CONSTANTS + symbols.SEALED_BYTES,
      symbols.CONSTANTS + symbols.SEAL + 5,
      symbols.CONSTANTS + symbols.STATE + 6,
      symbols.CONSTANTS + symbols.CR3_LEVEL4,
      symbols.save,
    ]) {
      const damage = ({ bytes }: MadeArea): void => {
        bytes[at] = (bytes[at] ?? 0) ^ 0x40;
      };
      assert.deepEqual(run({ damage }).lines, [ENTERED], `byte ${at}`);
    }
  });

  test('resets the machine rather than enter what is not the crash kernel', () => {
    const record = ({ bytes }: MadeArea): void => {
      bytes[symbols.FALLBACK + symbols.FALLBACK_PARAMS] = 1;
    };
    assert.deepEqual(run({ damage: record }).lines, ['reset']);
    const loaded = [{ address: 0x6b00_0000, bytes: Buffer.alloc(4096) }];
    assert.equal(run({ inputs: { loaded } }).lines.at(-1), 'reset');
  });

  test('enters the crash kernel after an exception as well', () => {
    const { lines, result } = run({ how: 'n' });
    assert.deepEqual(lines, [ENTERED]);
    assert.equal(result?.phase, 'stopped by an exception');
    assert.equal(result.exception?.vector, 2);
  });

  test('puts back once more what an exception has kept from being put back', () => {
    const { lines, result } = run({ how: 'b' });
    assert.deepEqual(lines.slice(-2), [`send 4200 to ${BOOT}`, ENTERED]);
    assert.equal(result?.phase, 'stopped by an exception');
    assert.deepEqual(
      result.problems.filter((problem) => problem.includes('put back')),
      [],
    );
  });

  test('does not believe what was written over what has no seal', () => {
    const damage = (area: MadeArea): void => {
      for (const symbol of [symbols.STATE_LOW_TAKEN, symbols.STATE_TEXT_TAKEN, symbols.STATE_MISSING])
        area.setState(symbol, 1);
      area.setState(symbols.STATE_FAULTS, 7);
    };
    // Low memory and text would be overwritten by zeros.
    assert.deepEqual(run({ damage, how: 'n' }).lines, [ENTERED]);
    assert.equal(run({ damage }).result?.missing, 0);
    // A first exception is not taken for a second one, after which nothing is checked any more.
    const loaded = [{ address: 0x6b00_0000, bytes: Buffer.alloc(4096) }];
    assert.deepEqual(run({ damage, how: 'n', inputs: { loaded } }).lines, ['reset']);
  });
});
