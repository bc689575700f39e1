import * as z from 'zod';
import { lossKinds } from '../config/schema.ts';

const seconds = z.number().meta({ description: 'seconds, with fractions' });
const bytes = z.int().nonnegative();

const check = z.strictObject({
  what: z.string().meta({ description: 'the two sources that were compared' }),
  result: z.enum(['agrees', 'differs']),
  detail: z.string().optional().meta({ description: 'both values, when they differ' }),
});

const repair = z.strictObject({ what: z.string(), used: z.string(), instead: z.string() });

const inDoubt = z.strictObject({
  tid: z.int(),
  syscall: z.string(),
  fd: z.int().optional(),
  reason: z.string(),
});

const tie = z.strictObject({
  with: z.int().meta({ description: 'the other process' }),
  why: z.string().meta({ description: 'its parent, its child, the same session, a pipe ...' }),
});

/** What no program expects to lose, of a process that came back for its crash procedure alone. */
const unexpectedKinds = ['descriptors', 'threads', 'memory', 'execution'] as const;

const loss = z.strictObject({
  kind: z.enum([...lossKinds, ...unexpectedKinds]).meta({
    description:
      'connections: as the rules and the configuration call it; the others are what no program expects to lose: ' +
      'open files, threads, areas of memory, and where the first thread was',
  }),
  what: z.string().meta({ description: 'what it was, what the process sees of it now, and why' }),
});

/** What became of a crash procedure that a process had registered. */
const crashProcedure = z.strictObject({
  delivery: z.enum(['call', 'signal', 'none']),
  state: z.enum(['ignored', 'delivered', 'continued', 'gave-up', 'replaced', 'exited', 'crashed', 'overran']),
  detail: z.string().optional(),
  fallback: z.enum(['continue', 'restart', 'give-up']).optional(),
});

const processReport = z.strictObject({
  pid: z.int(),
  comm: z.string(),
  exe: z.string().optional(),
  commandLine: z
    .string()
    .optional()
    .meta({ description: 'its arguments with blanks between them, cut; absent if they are not in memory' }),
  /** Set for a process that a rule names; its descendants come along with it. */
  protectedBy: z.string().optional().meta({ description: 'the rule that names it; absent for descendants' }),
  unit: z.string().optional().meta({ description: 'systemd unit that it belonged to' }),
  group: z.int().optional().meta({ description: 'processes with the same number were restored together' }),
  ties: z.array(tie).optional().meta({
    description: 'what it shares with others of the incident, which come back with it or not at all',
  }),
  plan: z
    .array(z.string())
    .optional()
    .meta({ description: 'what was set again besides what its images hold; absent if it was not tried' }),
  verdict: z
    .enum(['sound', 'repaired', 'refused'])
    .optional()
    .meta({ description: 'absent if it was not captured' }),
  outcome: z.enum(['pending', 'restored', 'ended', 'refused', 'failed']).meta({
    description:
      'pending: the report was written before it was decided; ended: it was ending at the panic, and nobody waits for it',
  }),
  fate: z.enum(['whole', 'with-losses', 'for-its-procedure', 'refused']).optional().meta({
    description:
      'what was decided of it: whole; with-losses: it lost what its program must expect to lose, and gets that failure; for-its-procedure: it lost what no program expects to lose, runs its crash procedure, and then executes another program or ends; refused. Absent if nothing was decided, it was ending, or it was never captured. `outcome` says whether it was carried out',
  }),
  losses: z
    .array(loss)
    .optional()
    .meta({ description: 'what it lost, of one that came back with losses or for its procedure' }),
  refusedFor: z.array(z.string()).optional().meta({
    description:
      'of one that came back for its procedure alone: why it would have been refused without one; what is to be mended so that it comes back whole',
  }),
  reasons: z.array(z.string()).meta({ description: 'why it was refused, or could not be restored' }),
  checks: z.array(check),
  repairs: z.array(repair),
  inDoubt: z.array(inDoubt),
  notes: z.array(z.string()),
  crashProcedure: crashProcedure.optional(),
  adopted: z
    .string()
    .optional()
    .meta({ description: 'unit or scope that it is in when the report is settled' }),
  ended: z.string().optional().meta({
    description:
      'it was restored and has ended since: when; absent while it runs, or before the report is settled',
  }),
});

const stage = z.strictObject({
  name: z.string(),
  startSeconds: seconds.meta({ description: 'since the crash kernel started' }),
  durationSeconds: seconds,
  outcome: z.enum(['done', 'failed', 'skipped']),
  detail: z.string().optional(),
  memoryTotalBytes: bytes.meta({ description: 'MemTotal at its end' }),
  memoryUsedBytes: bytes.meta({ description: 'MemTotal - MemAvailable at its end' }),
});

const stageZero = z.strictObject({
  phase: z
    .enum(['not entered', 'entered', 'starting the others', 'done', 'stopped by an exception'])
    .meta({ description: 'how far it came' }),
  milliseconds: z.number().optional().meta({ description: 'absent if it did not come to its end' }),
  processors: z.int().meta({ description: 'that were online' }),
  saved: z.int().meta({ description: 'processors of which it saved the registers' }),
  missing: z.int().meta({ description: 'processors that it called and that did not answer' }),
  problems: z.array(z.string()),
});

const panickingProcess = z.strictObject({
  pid: z.int(),
  comm: z.string(),
  exe: z.string().optional(),
  uid: z.int(),
});

const panic = z.strictObject({
  at: z.string().meta({ description: "when, by the dead kernel's clock (ISO 8601)" }),
  message: z.string().meta({ description: 'the first line that the kernel wrote of its panic' }),
  release: z.string(),
  cpu: z.int().optional(),
  process: panickingProcess.optional().meta({ description: 'what ran on the CPU that panicked' }),
  uptimeSeconds: seconds,
});

const memory = z.strictObject({
  reservedBytes: bytes,
  peakUsedBytes: bytes.meta({
    description:
      'most that was in use while only the reserved memory was there, reserved minus MemTotal included',
  }),
  reclaimedBytes: bytes,
});

/** `report.json` of an incident. */
export const reportSchema = z
  .strictObject({
    version: z.literal(1),
    id: z.string(),
    state: z.enum(['running', 'restored', 'settled', 'abandoned']).meta({
      description:
        'restored: the processes run, the system boots around them; settled: it has booted; abandoned: nothing could be brought back, and the machine has rebooted into its ordinary system',
    }),
    panic: panic.optional().meta({ description: 'absent if the dead kernel could not be read' }),
    crashKernelRelease: z.string(),
    secondsToCrashKernel: seconds
      .optional()
      .meta({ description: 'from the panic to the start of the crash kernel, to about a second' }),
    stageZero: stageZero.optional().meta({
      description: 'what ran between the dead kernel and the crash kernel; absent if nothing did',
    }),
    stages: z.array(stage),
    processes: z.array(processReport),
    groups: z
      .array(
        z.strictObject({
          group: z.int(),
          plan: z.array(z.string()),
          restoreSeconds: z
            .strictObject({
              criu: seconds.meta({ description: 'that `criu restore` took' }),
              all: seconds.meta({ description: 'with what was done before and after it' }),
            })
            .optional()
            .meta({
              description:
                'until its processes were as they would be; absent if they never were, and for a service in a sandbox if one of its groups never was',
            }),
        }),
      )
      .optional()
      .meta({ description: 'what was made before the restore of each group, and after it' }),
    unprotected: z
      .array(z.strictObject({ pid: z.int(), comm: z.string() }))
      .optional()
      .meta({
        description: 'processes that no rule named, nor an ancestor of theirs; absent if that is not known',
      }),
    unmatchedRules: z.array(z.string()).meta({ description: 'rules that no process matched' }),
    memory,
    errors: z.array(z.string()).meta({ description: 'what went wrong and concerns no single process' }),
    notes: z.array(z.string()),
  })
  .meta({ title: 'Otherworld incident report' });

export type IncidentReport = z.infer<typeof reportSchema>;
export type ProcessReport = IncidentReport['processes'][number];
export type StageReport = IncidentReport['stages'][number];
export type PanicReport = NonNullable<IncidentReport['panic']>;

/** The JSON Schema of report.json, as published in docs/report.schema.json. */
export function reportJsonSchema(): unknown {
  return z.toJSONSchema(reportSchema);
}
