import type { StageRunner } from './stage-runner.ts';
import type { Work } from './work.ts';

/** One thing that a stage needs of those before it, and what it does without. */
export interface Need<T> {
  readonly isRequired: boolean;
  readonly instead?: T;
}

/** Without it the stage is left out, and is not in the report: what failed before is there already. */
export function required<T extends object>(): Need<T> {
  return { isRequired: true };
}

/** Without it the stage runs with this instead. */
export function orElse<T>(instead: T): Need<T> {
  return { isRequired: false, instead };
}

/**
 * One stage. What it needs and gives are records: stages know each other by the keys alone, and the compiler
 * checks the values. A stage that fails or skips itself gives nothing. One that gives a key again replaces
 * the value, with `undefined` for what is not there any more.
 */
export interface Stage<Needs, Gives> {
  /** As the report has it. */
  readonly name: string;
  /**
   * What a stage throws is noted in the report, and the next one runs. The report has no entry of a step:
   * what it throws ends the resurrection.
   */
  readonly kind: 'stage' | 'step';
  readonly needs: Readonly<Record<string, Need<unknown>>>;
  readonly run: (inputs: Needs, work: Work) => Gives | Promise<Gives>;
}

interface Declaration<Needs, Gives> {
  readonly name: string;
  readonly needs: { readonly [Key in keyof Needs]: Need<Needs[Key]> };
  /** Reads nothing but what `needs` lists. */
  readonly run: (inputs: Needs, work: Work) => Gives | Promise<Gives>;
}

/** Declares a stage. */
export function stage<Needs extends object, Gives>(
  declaration: Declaration<Needs, Gives>,
): Stage<Needs, Gives> {
  return { kind: 'stage', ...declaration };
}

/** Declares what is done between stages. */
export function step<Needs extends object, Gives>(
  declaration: Declaration<Needs, Gives>,
): Stage<Needs, Gives> {
  return { kind: 'step', ...declaration };
}

/** What is known after a stage that gives this. */
type After<Known, Gives> = Gives extends object ? Omit<Known, keyof Gives> & Gives : Known;

/**
 * Stages in the order in which they run.
 * `Begin` is what is known before the first one, `Known` what is after the last one, if none has failed.
 */
export class StageList<Begin extends object, Known extends object = Begin> {
  readonly stages: readonly Stage<never, unknown>[];

  constructor(stages: readonly Stage<never, unknown>[] = []) {
    this.stages = stages;
  }

  /** The list with one more. It does not compile with a stage that needs what none before it gives. */
  next<Gives>(next: Stage<Known, Gives>): StageList<Begin, After<Known, Gives> & object> {
    return new StageList([...this.stages, next]);
  }

  /** Runs all of them. Throws what a step throws. */
  async run(begin: Begin, work: Work, runner: StageRunner): Promise<void> {
    let known: Readonly<Record<string, unknown>> = Object.fromEntries(Object.entries(begin));
    for (const { name, kind, needs, run } of this.stages) {
      const inputs = inputsOf(needs, known);
      if (inputs === undefined) continue;
      // The list has been checked when it was put together.
      const once = () => run(inputs as never, work);
      const given = await (kind === 'step' ? once() : runner.run(name, once));
      known = Object.assign({}, known, given);
    }
  }
}

/** Undefined if something is not there without which the stage is left out. */
function inputsOf(
  needs: Readonly<Record<string, Need<unknown>>>,
  known: Readonly<Record<string, unknown>>,
): Record<string, unknown> | undefined {
  const inputs: Record<string, unknown> = {};
  for (const [key, { isRequired, instead }] of Object.entries(needs)) {
    if (isRequired && known[key] === undefined) return undefined;
    inputs[key] = known[key] ?? instead;
  }
  return inputs;
}
