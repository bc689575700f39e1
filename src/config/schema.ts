import * as z from 'zod';

const absolutePath = z.string().startsWith('/', 'an absolute path is wanted');

/** 0: no limit. */
const ageDays = z.number().min(0).max(36_500);

/** A fixed set of keys: a key that nobody reads is a typing error that would go unnoticed. */
const names = {
  commands: z.array(z.string().min(1)).default([]),
  units: z.array(z.string().min(1)).default([]),
};
/** Commands and units of root, and those of other users by name or number. */
const protect = z
  .strictObject({ ...names, users: z.record(z.string().min(1), z.strictObject(names)).default({}) })
  .prefault({});

const images = z
  .strictObject({
    directory: absolutePath.default('/var/lib/otherworld/images'),
    keep: z.enum(['never', 'failed', 'always']).default('failed'),
    'max-age-days': ageDays.default(30),
  })
  .prefault({});

const incidents = z
  .strictObject({
    keep: z.int().min(1).max(10_000).default(100),
    'max-age-days': ageDays.default(365),
  })
  .prefault({});

const tmpfs = z
  .strictObject({
    'max-mebibytes': z
      .int()
      .min(0)
      .max(2 ** 30)
      .default(1024),
  })
  .prefault({});

const services = z
  .strictObject({
    sandboxes: z.enum(['refuse', 'restore']).default('restore'),
  })
  .prefault({});

/** Kinds of things that a process may lose, where that is allowed, instead of not coming back. */
export const lossKinds = ['connections'] as const;
export type LossKind = (typeof lossKinds)[number];

const losses = z
  .strictObject({
    connections: z.enum(['keep', 'break']).default('keep'),
  } satisfies Record<LossKind, unknown>)
  .prefault({});

const panic = z
  .strictObject({
    'on-oops': z.boolean().default(true),
    'on-unknown-nmi': z.boolean().default(true),
    'on-soft-lockup': z.boolean().default(true),
    'on-hard-lockup': z.boolean().default(true),
    'on-hung-task': z.boolean().default(false),
    'reboot-after-seconds': z.int().min(0).max(86_400).default(10),
  })
  .prefault({});

const crashKernel = z
  .strictObject({
    'add-parameters': z
      .array(z.string().regex(/^\S+$/, 'one parameter without spaces is wanted'))
      .default([]),
    'boot-processor': z.enum(['auto', 'smi', 'off']).default('auto'),
    'time-limit-minutes': z.number().min(1).max(1440).default(30),
    'remove-parameters': z
      .array(z.string().regex(/^[^\s=]+$/, 'the name of a parameter, without a value, is wanted'))
      .default([]),
  })
  .prefault({});

const crashProcedure = z
  .strictObject({
    'time-limit-seconds': z.number().positive().max(3600).default(10),
    fallback: z.enum(['continue', 'restart', 'give-up']).default('continue'),
  })
  .prefault({});

const crashLoop = z
  .strictObject({
    incidents: z.int().min(1).max(100).default(3),
    'within-minutes': z.number().positive().max(10_080).default(60),
  })
  .prefault({});

/** `/etc/otherworld/otherworld.toml`; every key has a default, an unknown key is an error. */
export const configSchema = z.strictObject({
  protect,
  images,
  incidents,
  tmpfs,
  services,
  losses,
  panic,
  'crash-kernel': crashKernel,
  'crash-procedure': crashProcedure,
  'crash-loop': crashLoop,
});

/** The configuration with all defaults filled in. */
export type Config = z.infer<typeof configSchema>;
