import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import type { Range } from '../system/range.ts';
import { bootLimitsSchema } from './boot-limits.ts';
import { PAYLOAD_DIRECTORY } from './paths.ts';
import { ruleSchema } from './protection.ts';
import { configSchema } from './schema.ts';

const range = z.strictObject({ start: z.number(), end: z.number() }) satisfies z.ZodType<Range>;

/**
 * What `arm` tells the crash world, kept in the reserved memory with it: how the main kernel was armed, and
 * the configuration at that time (the one that the system was checked with).
 */
export const manifestSchema = z.strictObject({
  version: z.literal(1),
  /** `uname -r` of the main kernel. */
  release: z.string(),
  /** The main kernel's series was not checked, and it was armed with --unchecked. */
  unchecked: z.boolean().default(false),
  /** /proc/sys/kernel/random/boot_id of the main kernel. */
  bootId: z.string(),
  armedAt: z.string(),
  /** Memory reserved for the crash kernel, in bytes. */
  reservedBytes: z.number(),
  /** Old memory to take back: physical addresses in bytes, whole memory blocks. */
  ranges: z.array(range),
  config: configSchema,
  /** Absent: armed by a version that did not note them. */
  bootLimits: bootLimitsSchema.optional(),
  /** The configuration's rules, with the numbers that its users had. */
  rules: z.array(ruleSchema).default([]),
});

export type Manifest = z.infer<typeof manifestSchema>;

/** The manifest that this crash world was loaded with. */
export function loadManifest(payload: string = PAYLOAD_DIRECTORY): Manifest {
  return manifestSchema.parse(JSON.parse(readFileSync(join(payload, 'manifest.json'), 'utf8')));
}

/** What `arm` notes about itself in /run/otherworld, for `status` and `disarm`. */
export const armedSchema = z.strictObject({
  manifest: manifestSchema,
  commandLine: z.string(),
  initramfsBytes: z.number(),
  /** What the crash world is expected to use at most. */
  neededBytes: z.number(),
  /** Physical address of stage zero, if it was loaded: `status` looks whether it is still whole. */
  stageZeroAddress: z.int().optional(),
  /** APIC ids of the processors whose registers stage zero saves, if it was loaded. */
  apicIds: z.array(z.int()).optional(),
  /**
   * Why what computes is lost: on any processor, as there is no stage zero, on the boot processor, or on the
   * others.
   */
  lacking: z
    .strictObject({
      stageZero: z.string().optional(),
      bootProcessor: z.string().optional(),
      otherProcessors: z.string().optional(),
    })
    .default({}),
  /** Panic sysctls as they were before. */
  sysctlsBefore: z.record(z.string(), z.string()),
  /** A text in the initramfs that was loaded, and its physical address, by which it is known again. */
  mark: z.strictObject({ text: z.string(), address: z.int().optional() }),
});

export type Armed = z.infer<typeof armedSchema>;
