import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { writeDurably } from './durable-file.ts';
import { PROTECTION_PATH } from './paths.ts';
import type { Config } from './schema.ts';

const pidRule = z.strictObject({
  kind: z.literal('pid'),
  pid: z.int().positive(),
  /** Start time in USER_HZ ticks since boot, field 22 of /proc/PID/stat (proc(5)): a reused pid does not match. */
  startTicks: z.int().nonnegative(),
  comm: z.string(),
});
const commandRule = z.strictObject({ kind: z.literal('command'), name: z.string().min(1) });
const unitRule = z.strictObject({ kind: z.literal('unit'), unit: z.string().min(1) });

const ruleSchema = z.discriminatedUnion('kind', [pidRule, commandRule, unitRule]);
const fileSchema = z.strictObject({ version: z.literal(1), rules: z.array(ruleSchema) });

/** Protects one process, all processes of a command or all processes of a systemd unit, each with its descendants. */
export type ProtectionRule = z.infer<typeof ruleSchema>;

/** The protection rules cannot be read or make no sense. */
export class ProtectionError extends Error {
  override readonly name = 'ProtectionError';
}

/**
 * The rules set by `otherworld protect`; none if nothing was ever protected.
 * @throws ProtectionError if the file is damaged
 */
export function loadRules(path: string = PROTECTION_PATH): ProtectionRule[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
  try {
    return fileSchema.parse(JSON.parse(text)).rules;
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : String(error);
    throw new ProtectionError(`${path} is damaged (${why}); remove it and protect the processes again`);
  }
}

/** Writes the rules so that they survive a panic in the very next moment. */
export function saveRules(rules: readonly ProtectionRule[], path: string = PROTECTION_PATH): void {
  writeDurably(path, `${JSON.stringify({ version: 1, rules }, undefined, 2)}\n`);
}

/** The rules of the configuration file and those of `otherworld protect` together. */
export function allRules(config: Config, saved: readonly ProtectionRule[]): ProtectionRule[] {
  return [
    ...config.protect.commands.map((name): ProtectionRule => ({ kind: 'command', name })),
    ...config.protect.units.map((unit): ProtectionRule => ({ kind: 'unit', unit: unitName(unit) })),
    ...saved,
  ];
}

/** Adds a rule; a rule that is there already, or an old one of the same pid, is replaced. */
export function addRule(rules: readonly ProtectionRule[], rule: ProtectionRule): ProtectionRule[] {
  return [...rules.filter((other) => !sameTarget(other, rule)), rule];
}

/** The rules without those that name this target. */
export function removeRule(rules: readonly ProtectionRule[], rule: RuleTarget): ProtectionRule[] {
  return rules.filter((other) => !sameTarget(other, rule));
}

/** What a rule is about, without the details that pin it. */
export type RuleTarget =
  | { readonly kind: 'pid'; readonly pid: number }
  | { readonly kind: 'command'; readonly name: string }
  | { readonly kind: 'unit'; readonly unit: string };

function sameTarget(left: RuleTarget, right: RuleTarget): boolean {
  return describeRule(left) === describeRule(right);
}

/** A rule as people write it: `--pid 4711`, `--command redis-server`, `--unit redis.service`. */
export function describeRule(rule: RuleTarget): string {
  if (rule.kind === 'pid') return `--pid ${rule.pid}`;
  return rule.kind === 'command' ? `--command ${rule.name}` : `--unit ${rule.unit}`;
}

/** A unit's full name: `redis` is `redis.service`, as systemctl takes it. */
export function unitName(text: string): string {
  return /\.(service|scope|slice)$/.test(text) ? text : `${text}.service`;
}
