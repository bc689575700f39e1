import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RESURRECTION } from '../../../src/crash-world/stages/resurrection.ts';
import { orElse, required, StageList, stage, step } from '../../../src/crash-world/stages/stage-list.ts';
import { StageRunner, StageSkipped } from '../../../src/crash-world/stages/stage-runner.ts';
import { EVERYTHING } from '../../../src/crash-world/stages/take-back.ts';
import type { Work } from '../../../src/crash-world/stages/work.ts';
import type { IncidentReport } from '../../../src/report/schema.ts';
import { emptyReport } from '../../report/example.ts';

type Values = Record<string, unknown>;

/** What the fakes give: a name for each thing that a stage gives when it ends well. */
const GIVEN: Readonly<Record<string, Values>> = {
  'stage-zero': { parked: 'parked' },
  mounts: { mounts: 'mounts' },
  selection: { selection: 'selection' },
  capture: { groups: 'groups' },
  images: { imaged: 'imaged' },
  'save-tmpfs': { savedTmpfs: 'saved tmpfs' },
  limits: { limits: 'limits' },
  cpus: { needed: 'needed' },
  close: { kernel: undefined, writeBack: undefined },
  memory: { takenBack: 'taken back' },
  files: { ready: 'ready', unchanged: 'unchanged' },
  watch: { watch: 'watch' },
  unanswered: { imaged: 'those that are left', apart: 'apart' },
  restore: { restored: 'restored' },
  sandboxes: { late: 'late' },
  procedures: { restored: 'restored without those that ended' },
};

interface Outcome {
  /** What each stage that ran was given. */
  readonly inputs: ReadonlyMap<string, Values>;
  readonly report: IncidentReport;
  readonly error: unknown;
}

/** Runs the real list with fakes in the place of what its stages do. */
async function resurrect(failing?: string, failure: Error = new Error('no luck')): Promise<Outcome> {
  const inputs = new Map<string, Values>();
  const fakes = RESURRECTION.stages.map((one) => ({
    ...one,
    run: (given: Values) => {
      inputs.set(one.name, given);
      if (one.name === failing) throw failure;
      return GIVEN[one.name];
    },
  }));
  const report = emptyReport();
  report.stages = [];
  const list = new StageList<{ kernel: string; writeBack: string }>(fakes);
  let error: unknown;
  try {
    await list.run({ kernel: 'kernel', writeBack: 'write-back' }, noWork, new StageRunner(report, () => {}));
  } catch (thrown) {
    error = thrown;
  }
  return { inputs, report, error };
}

/** The fakes look at nothing of it. */
const noWork = {} as Work;

const NAMES = [
  ...[
    'log',
    'mounts',
    'swap',
    'write-back',
    'selection',
    'capture',
    'images',
    'save-tmpfs',
    'cpus',
    'memory',
  ],
  ...['make-tmpfs', 'files', 'restore', 'procedures', 'sandboxes', 'handover'],
];

test('stages run in this order, and are in the report under these names', async () => {
  const { report, inputs } = await resurrect();
  assert.deepEqual(
    report.stages.map(({ name, outcome }) => `${name} ${outcome}`),
    NAMES.map((name) => `${name} done`),
  );
  const kernel = 'kernel';
  assert.deepEqual(Object.fromEntries(inputs), {
    log: { kernel },
    mounts: { kernel },
    swap: { kernel },
    'write-back': { kernel, writeBack: 'write-back' },
    selection: { kernel },
    capture: { kernel, writeBack: 'write-back', selection: 'selection' },
    images: { kernel, groups: 'groups' },
    'save-tmpfs': { kernel, imaged: 'imaged' },
    limits: { kernel, imaged: 'imaged' },
    'stage-zero': { kernel },
    cpus: { kernel, parked: 'parked' },
    close: { kernel },
    memory: { needed: 'needed' },
    'boot-limits': { takenBack: 'taken back' },
    'make-tmpfs': { savedTmpfs: 'saved tmpfs', imaged: 'imaged' },
    files: { imaged: 'imaged' },
    'read-only': { mounts: 'mounts' },
    watch: {},
    unanswered: { imaged: 'imaged' },
    restore: { ready: 'ready', watch: 'watch' },
    procedures: { restored: 'restored', watch: 'watch' },
    sandboxes: { imaged: 'those that are left', unchanged: 'unchanged' },
    handover: {
      restored: 'restored without those that ended',
      selection: 'selection',
      limits: 'limits',
      savedTmpfs: 'saved tmpfs',
      late: 'late',
      apart: 'apart',
    },
  });
});

const nobody = { selected: [], candidates: [], rules: [] };

/**
 * What is otherwise in later stages when one fails: other inputs, or the stage is left out. All that is not
 * listed is as if nothing had failed.
 */
const CONSEQUENCES: Readonly<Record<string, Readonly<Record<string, Values | 'left out'>>>> = {
  log: {},
  mounts: { 'read-only': { mounts: [] } },
  swap: {},
  'write-back': {},
  selection: { capture: 'left out', images: { groups: [] }, handover: { selection: nobody } },
  capture: { images: { groups: [] } },
  images: {
    'save-tmpfs': { imaged: [] },
    limits: { imaged: [] },
    'make-tmpfs': { imaged: [] },
    files: { imaged: [] },
    unanswered: { imaged: [] },
  },
  'save-tmpfs': { 'make-tmpfs': 'left out', handover: { savedTmpfs: undefined } },
  cpus: { memory: { needed: [EVERYTHING] } },
  memory: { 'boot-limits': 'left out' },
  'make-tmpfs': {},
  files: { restore: { ready: [] }, sandboxes: { unchanged: new Map() } },
  restore: { procedures: { restored: [] }, handover: {} },
  procedures: { handover: { restored: 'restored' } },
  sandboxes: { handover: { late: [] } },
  handover: {},
};

for (const [failing, consequences] of Object.entries(CONSEQUENCES)) {
  test(`when ${failing} fails, the others run with what there is`, async () => {
    const well = await resurrect();
    const { inputs, report, error } = await resurrect(failing);
    assert.equal(error, undefined);
    const expected = new Map(well.inputs);
    for (const [name, change] of Object.entries(consequences)) {
      if (change === 'left out') expected.delete(name);
      else expected.set(name, { ...well.inputs.get(name), ...change });
    }
    assert.deepEqual(Object.fromEntries(inputs), Object.fromEntries(expected));
    assert.deepEqual(
      report.stages.map(({ name, outcome }) => `${name} ${outcome}`),
      NAMES.filter((name) => consequences[name] !== 'left out').map(
        (name) => `${name} ${name === failing ? 'failed' : 'done'}`,
      ),
    );
    assert.deepEqual(report.errors, [`${failing}: no luck`]);
  });
}

test('every stage has its consequences written down', () => {
  const stages = RESURRECTION.stages.filter(({ kind }) => kind === 'stage').map(({ name }) => name);
  assert.deepEqual(Object.keys(CONSEQUENCES), stages);
});

test('when nobody waits for procedures, what was restored is handed over', async () => {
  const { inputs, report } = await resurrect('procedures', new StageSkipped('no procedure to wait for'));
  assert.equal(inputs.get('handover')?.restored, 'restored');
  assert.deepEqual(report.errors, []);
  assert.equal(report.stages.find(({ name }) => name === 'procedures')?.outcome, 'skipped');
});

for (const failing of ['limits', 'close', 'read-only', 'watch']) {
  test(`when ${failing}, which is no stage, fails, nothing comes after it`, async () => {
    const { inputs, report, error } = await resurrect(failing);
    assert.ok(error instanceof Error && error.message === 'no luck');
    assert.equal([...inputs.keys()].at(-1), failing);
    assert.deepEqual(report.errors, []);
  });
}

test('a stage that needs what no earlier one gives is not compiled', () => {
  const gives = stage({ name: 'gives', needs: {}, run: () => ({ count: 1 }) });
  const needs = stage({
    name: 'needs',
    needs: { count: orElse(0) },
    run: ({ count }) => void count.toFixed(),
  });
  const takes = step({ name: 'takes', needs: {}, run: () => ({ kernel: undefined }) });
  const reads = stage({ name: 'reads', needs: { kernel: required<{ at: number }>() }, run: () => {} });
  const list = new StageList<{ kernel: { at: number } }>();
  assert.equal(list.next(gives).next(needs).next(reads).next(takes).stages.length, 4);
  // @ts-expect-error: nothing gives a count
  list.next(needs);
  // @ts-expect-error: the kernel is not there any more
  list.next(takes).next(reads);
  // @ts-expect-error: it reads what it has not listed
  stage({ name: 'hides', needs: {}, run: ({ count }) => count });
});
