import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { fileIdentity } from '../../criu/images/index.ts';
import { readImageText } from '../../criu/restore/index.ts';
import type { ProcessGroup } from '../../model/group.ts';
import type { Sandbox } from '../../model/sandbox.ts';
import { type ExaminedGroup, examinedOf } from '../processes/examine.ts';
import { madePaths } from './made-paths.ts';
import { type Unchanged, unchangedSchema } from './unchanged-files.ts';

/** What is known of a group when the system has booted; lies next to its images. */
const SANDBOX_PLAN = 'sandbox.json';

const mount = z.strictObject({
  path: z.string(),
  type: z.string(),
  root: z.string(),
  limits: z.int(),
  options: z.string(),
  isOwn: z.boolean(),
});

const planSchema = z.strictObject({
  /** Bytes of memory that the group will take. */
  pagesBytes: z.int(),
  /** For its rings, after CRIU. */
  ringSeconds: z.number(),
  /** Users of its processes. */
  uids: z.array(z.int()),
  /** Paths by which CRIU makes files. */
  made: z.array(z.string()),
  unchanged: z.array(unchangedSchema),
  /** How many TCP connections it has, to which nobody is to answer before they are there. */
  connections: z.int(),
  sandbox: z.strictObject({
    unit: z.string(),
    mounts: z.array(mount),
    outside: z.array(mount),
    hostName: z.strictObject({ node: z.string(), domain: z.string() }).optional(),
    ipc: z.record(z.string(), z.string()).optional(),
    privateDirectories: z.array(z.strictObject({ path: z.string(), from: z.string() })),
  }),
  group: z.strictObject({
    files: z.array(
      z.strictObject({
        id: z.int(),
        named: z
          .strictObject({ path: z.string(), identity: fileIdentity, ghostId: z.int().optional() })
          .optional(),
        link: z.string().optional(),
      }),
    ),
    tables: z.array(
      z.strictObject({
        filesId: z.int(),
        descriptors: z.array(z.strictObject({ fd: z.int(), fileId: z.int(), closeOnExec: z.boolean() })),
      }),
    ),
    processes: z.array(
      z.strictObject({
        pid: z.int(),
        isZombie: z.boolean(),
        filesId: z.int(),
        cwdFileId: z.int(),
        rootFileId: z.int(),
        exeFileId: z.int().optional(),
        areas: z.array(
          z.strictObject({ start: z.int(), end: z.int(), isOfFile: z.boolean(), fileId: z.int().optional() }),
        ),
      }),
    ),
  }),
});

/** See {@link SANDBOX_PLAN}. */
export interface SandboxPlan {
  readonly pagesBytes: number;
  readonly ringSeconds: number;
  readonly uids: readonly number[];
  readonly made: readonly string[];
  readonly unchanged: readonly Unchanged[];
  readonly connections: number;
  readonly sandbox: Sandbox;
  readonly group: ExaminedGroup;
}

/**
 * Writes the plan of a group that is restored into its sandbox. Others may run by now.
 * @param known the bytes of memory that it will take, and its files as they were before anybody ran
 */
export function writeSandboxPlan(
  directory: string,
  group: ProcessGroup & { readonly sandbox: Sandbox },
  known: Pick<SandboxPlan, 'pagesBytes' | 'unchanged' | 'connections'>,
): void {
  const uids = group.processes.flatMap(({ threads }) => threads.map(({ credentials }) => credentials.uid));
  const made = madePaths(group.files);
  const ringSeconds = group.ringSeconds ?? 0;
  const own = { sandbox: group.sandbox, group: examinedOf(group) };
  const plan: SandboxPlan = { ...known, ringSeconds, uids: [...new Set(uids)], made, ...own };
  writeFileSync(join(directory, SANDBOX_PLAN), `${JSON.stringify(plan)}\n`, { flag: 'wx', mode: 0o600 });
}

/** Throws an Error if there is none, or it is damaged. */
export function readSandboxPlan(directory: string): SandboxPlan {
  return planSchema.parse(JSON.parse(readImageText(join(directory, SANDBOX_PLAN))));
}
