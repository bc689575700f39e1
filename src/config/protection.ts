import { dirname } from 'node:path';
import * as z from 'zod';
import { damageOf } from '../system/damage.ts';
import { lockDirectory } from '../system/directory-lock.ts';
import { readStateFile, removeLeftovers, replaceFile, setAside } from '../system/state-file.ts';
import type { User } from '../system/users.ts';
import { PROTECTION_PATH } from './paths.ts';
import { type Config, type LossKind, lossKinds } from './schema.ts';

const pidRule = z.strictObject({
  kind: z.literal('pid'),
  pid: z.int().positive(),
  /**
   * Start time in USER_HZ ticks since boot, field 22 of /proc/PID/stat (proc(5)): a reused pid does not
   * match.
   */
  startTicks: z.int().nonnegative(),
  comm: z.string(),
});
/** Whose processes and units are meant; root's, if it is not there. */
const user = z.strictObject({ name: z.string().min(1), uid: z.int().positive() }).optional();
const commandRule = z.strictObject({ kind: z.literal('command'), name: z.string().min(1), user });
const unitRule = z.strictObject({ kind: z.literal('unit'), unit: z.string().min(1), user });

export const ruleSchema = z.discriminatedUnion('kind', [pidRule, commandRule, unitRule]);
/**
 * Its rules are looked at one by one: a damaged one costs no other. What rules allow stands beside them: a
 * crash world from before there was such a thing looks at the rules alone, and would call one with a member
 * that it does not know damaged.
 */
const fileSchema = z.object({
  version: z.literal(1),
  rules: z.array(z.unknown()),
  allowances: z.unknown().optional(),
});
/** What the processes of a rule may lose instead of not coming back. */
const allowanceSchema = z.strictObject({
  rule: ruleSchema,
  allowLoss: z.array(z.enum(lossKinds)).min(1),
});

/**
 * Protects one process, all processes of a command or all processes of a systemd unit, each with its
 * descendants. Commands and units are a user's: root's, unless another one is named. `allowLoss` says what
 * they may lose instead of not coming back; nothing, if it is not there.
 */
export type ProtectionRule = z.infer<typeof ruleSchema> & {
  readonly allowLoss?: readonly LossKind[] | undefined;
};

/** What could be read of the rules. */
export interface LoadedRules {
  readonly rules: readonly ProtectionRule[];
  /**
   * What is wrong with the file, a sentence for each fault; the rules that it concerns are lost, the others
   * hold.
   */
  readonly problems: readonly string[];
}

/**
 * The rules set by `otherworld protect`; none if nothing was ever protected. Never throws: a damaged file
 * costs what it held, and is named.
 */
export function loadRules(path: string = PROTECTION_PATH): LoadedRules {
  let file: z.infer<typeof fileSchema>;
  try {
    const text = readStateFile(path);
    if (text === undefined) return { rules: [], problems: [] };
    file = fileSchema.parse(JSON.parse(text));
  } catch (error) {
    return { rules: [], problems: [`${path} cannot be used, and its rules are lost: ${damageOf(error)}`] };
  }
  const rules = sound(file.rules, ruleSchema, `${path}: rule`);
  const allowances = allowancesOf(file.allowances, path);
  return {
    rules: rules.sound.map((rule) => {
      const allowance = allowances.sound.find((one) => isSameRule(one.rule, rule));
      return allowance === undefined ? rule : { ...rule, allowLoss: allowance.allowLoss };
    }),
    problems: [...rules.problems, ...allowances.problems],
  };
}

interface Parsed<T> {
  readonly sound: readonly T[];
  readonly problems: readonly string[];
}

/** @param what each of them, for people */
function sound<T>(held: readonly unknown[], schema: z.ZodType<T>, what: string): Parsed<T> {
  const found: T[] = [];
  const problems: string[] = [];
  for (const [index, one] of held.entries()) {
    const { data, error } = schema.safeParse(one);
    if (data !== undefined) found.push(data);
    else problems.push(`${what} ${index + 1} of ${held.length} is damaged, and lost: ${damageOf(error)}`);
  }
  return { sound: found, problems };
}

/** A damaged one costs what it allowed, never the rule. */
function allowancesOf(held: unknown, path: string): Parsed<z.infer<typeof allowanceSchema>> {
  if (held === undefined) return { sound: [], problems: [] };
  if (Array.isArray(held)) return sound(held, allowanceSchema, `${path}: what may be lost,`);
  return { sound: [], problems: [`${path}: what may be lost is damaged, and may not be lost: no list`] };
}

function isSameRule(one: ProtectionRule, other: ProtectionRule): boolean {
  if (targetKey(one) !== targetKey(other)) return false;
  return one.kind !== 'pid' || other.kind !== 'pid' || one.startTicks === other.startTicks;
}

/** The file's text: what rules allow beside them. */
function fileText(rules: readonly ProtectionRule[]): string {
  const split = rules.map(({ allowLoss = [], ...rule }) => ({ rule, allowLoss }));
  const allowances = split.filter(({ allowLoss }) => allowLoss.length > 0);
  const file = {
    ...{ version: 1, rules: split.map(({ rule }) => rule) },
    ...(allowances.length === 0 ? {} : { allowances }),
  };
  return `${JSON.stringify(file, undefined, 2)}\n`;
}

/** What a change of the rules came upon. */
export interface UpdatedRules {
  readonly before: readonly ProtectionRule[];
  readonly after: readonly ProtectionRule[];
  /** What was wrong with the file, and where it is kept. */
  readonly problems: readonly string[];
}

/**
 * Changes the rules so that they survive a panic in the very next moment; other processes that do the same
 * wait meanwhile. A damaged file is kept under another name.
 * @throws StateError if the directory is not root's alone, or another process does not end its change
 */
export function updateRules(
  change: (rules: readonly ProtectionRule[]) => readonly ProtectionRule[],
  path: string = PROTECTION_PATH,
): UpdatedRules {
  using _lock = lockDirectory(dirname(path));
  removeLeftovers(path);
  const { rules: before, problems } = loadRules(path);
  const after = change(before);
  const kept = problems.length === 0 ? [] : [`the damaged file is kept: ${setAside(path)}`];
  replaceFile(path, fileText(after));
  return { before, after, problems: [...problems, ...kept] };
}

/**
 * The rules of the configuration file.
 * @param userOf the user of a name or number
 * @returns those whose user there is, and a sentence for each user that there is not
 */
export function configuredRules(
  { protect }: Pick<Config, 'protect'>,
  userOf: (name: string) => User | undefined,
): LoadedRules {
  const rules: ProtectionRule[] = [...namedRules(protect, undefined)];
  const problems: string[] = [];
  for (const [name, names] of Object.entries(protect.users)) {
    const found = userOf(name);
    if (found === undefined) problems.push(`protect.users.${name}: this system has no user ${name}`);
    else rules.push(...namedRules(names, found));
  }
  return { rules, problems };
}

/** Rules for what has a name; `user` undefined is root. */
export function namedRules(
  { commands, units }: { readonly commands: readonly string[]; readonly units: readonly string[] },
  user: User | undefined,
): ProtectionRule[] {
  const whose = user === undefined || user.uid === 0 ? {} : { user };
  return [
    ...commands.map((name): ProtectionRule => ({ kind: 'command', name, ...whose })),
    ...units.map((unit): ProtectionRule => ({ kind: 'unit', unit: unitName(unit), ...whose })),
  ];
}

/**
 * Adds rules; one that is there already, or an old one of the same pid, is replaced, with what it allowed.
 */
export function addRules(
  rules: readonly ProtectionRule[],
  fresh: readonly ProtectionRule[],
): ProtectionRule[] {
  const latest = new Map(fresh.map((rule) => [targetKey(rule), rule]));
  return [...rules.filter((rule) => !latest.has(targetKey(rule))), ...latest.values()];
}

/** The rules without those that have these targets. */
export function removeRules(
  rules: readonly ProtectionRule[],
  targets: readonly RuleTarget[],
): ProtectionRule[] {
  const gone = new Set(targets.map(targetKey));
  return rules.filter((rule) => !gone.has(targetKey(rule)));
}

/** What a rule is about, without the details that pin it. */
export type RuleTarget =
  | { readonly kind: 'pid'; readonly pid: number }
  | { readonly kind: 'command'; readonly name: string; readonly user?: User | undefined }
  | { readonly kind: 'unit'; readonly unit: string; readonly user?: User | undefined };

/** The same for two rules with the same target: a user is known by the number. */
export function targetKey(rule: RuleTarget): string {
  if (rule.kind === 'pid') return `pid ${rule.pid}`;
  return `${rule.kind} ${rule.user?.uid ?? 0} ${rule.kind === 'command' ? rule.name : rule.unit}`;
}

/**
 * A rule as people write it: `--pid 4711`, `--command tmux --user alice`, `--unit redis.service --allow-loss
 * connections`.
 */
export function describeRule(
  rule: RuleTarget & { readonly allowLoss?: readonly LossKind[] | undefined },
): string {
  const losses = rule.allowLoss === undefined ? '' : ` --allow-loss ${rule.allowLoss.join(',')}`;
  return `${describeTarget(rule)}${losses}`;
}

function describeTarget(rule: RuleTarget): string {
  if (rule.kind === 'pid') return `--pid ${rule.pid}`;
  const what = rule.kind === 'command' ? `--command ${rule.name}` : `--unit ${rule.unit}`;
  return rule.user === undefined ? what : `${what} --user ${rule.user.name}`;
}

/** A unit's full name: `redis` is `redis.service`, as systemctl takes it. */
export function unitName(text: string): string {
  return /\.(service|scope|slice)$/.test(text) ? text : `${text}.service`;
}
