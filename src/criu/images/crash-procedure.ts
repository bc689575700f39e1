import { runningArchitecture, type SignalContext } from '../../arch/index.ts';
import {
  type CapturedProcedure,
  type CrashProcedure,
  type DeliveryByCall,
  notContinuedStatus,
} from '../../model/crash-procedure.ts';
import type { ProcessGroup } from '../../model/group.ts';
import type { PageOverride } from '../../model/memory.ts';
import { type ProcedureIncident, writeIncident } from '../../model/procedure-incident.ts';
import { procedureItems } from '../../model/procedure-items.ts';
import type { Process, SyscallOutcomeRecord, Thread } from '../../model/process.ts';
import { PAGE_SIZE } from '../../system/page.ts';

const siginfoBytes = 128;
const SI_QUEUE = -1;
/** `si_value` of the signal: the version of the record. */
const signalValue = 1;
const { programStart, signalFrame } = runningArchitecture();

/** The part of an incident that is the same for all processes. */
export type ProcedureOccasion = Pick<ProcedureIncident, 'id' | 'panicTimeNanoseconds'>;

/** What was made of one process's record. */
export type ProcedurePlan = { readonly pid: number; readonly comm: string } & (
  | {
      readonly state: 'delivered';
      readonly procedure: CrashProcedure;
      /** User address of the interrupted context; undefined with delivery by signal. */
      readonly frame: number | undefined;
      /** False for a process that comes back for its procedure alone: it ends, whatever becomes of that. */
      readonly mayContinue: boolean;
    }
  /** The process goes on as if it had none; `reason` completes the sentence `The record ...`. */
  | { readonly state: 'ignored'; readonly reason: string }
);

export type DeliveredPlan = Extract<ProcedurePlan, { state: 'delivered' }>;

/** The plans of processes that run their procedure as soon as they are restored, and may end in it. */
export function deliveredPlans(plans: readonly ProcedurePlan[]): DeliveredPlan[] {
  return plans.filter((plan) => plan.state === 'delivered');
}

/**
 * Changes a captured group so that its processes run their crash procedures when they are restored. With
 * delivery by call the first thread starts at the entry point, and the context in which it was interrupted
 * waits in a signal frame on the procedure's stack; with delivery by signal a siginfo is queued. Both find
 * the incident in their record. Of a process that comes back for its procedure alone, the end of it waits
 * there instead.
 *
 * @throws Error if such a process has no procedure that can be called
 * @returns the group for the images, and for every record what was made of it
 */
export function applyCrashProcedures(
  group: ProcessGroup,
  captured: readonly CapturedProcedure[],
  occasion: ProcedureOccasion,
): { group: ProcessGroup; plans: ProcedurePlan[] } {
  const records = new Map(captured.map((record) => [record.pid, record]));
  const plans: ProcedurePlan[] = [];
  const processes = group.processes.map((process) => {
    const record = records.get(process.pid);
    const { pid, comm } = process;
    const mayContinue = process.procedureAlone === undefined;
    if (record === undefined) {
      if (!mayContinue) throw new Error(`process ${pid} has no crash procedure, and nothing else to run`);
      return process;
    }
    const result = record.valid ? applyOne(process, record, occasion) : record;
    if ('reason' in result) {
      if (!mayContinue) throw new Error(`the record of process ${pid} ${result.reason}`);
      plans.push({ pid, comm, state: 'ignored', reason: result.reason });
      return process;
    }
    const { procedure, frame } = result;
    plans.push({ pid, comm, state: 'delivered', procedure, frame, mayContinue });
    return result.process;
  });
  return { group: { ...group, processes }, plans };
}

type ValidRecord = Extract<CapturedProcedure, { valid: true }>;

type Applied =
  | { readonly process: Process; readonly procedure: CrashProcedure; readonly frame: number | undefined }
  | { readonly valid: false; readonly reason: string };

function applyOne(process: Process, record: ValidRecord, occasion: ProcedureOccasion): Applied {
  const { procedure } = record;
  const { delivery } = procedure;
  const incident = incidentOf(process, occasion);
  if (delivery.kind === 'call') return applyCall(process, record, delivery, incident);
  if (process.procedureAlone !== undefined)
    return {
      valid: false,
      reason: 'asks for a signal, whose handler returns to where the process may not go on',
    };
  const page = { address: procedure.address, bytes: writeIncident(record.header, procedure, incident, 0) };
  const sharedPendingSignals = [...process.sharedPendingSignals, siginfo(delivery.signal)];
  return {
    process: { ...withOverrides(process, [page]), sharedPendingSignals },
    procedure,
    frame: undefined,
  };
}

function applyCall(
  process: Process,
  record: ValidRecord,
  delivery: DeliveryByCall,
  incident: ProcedureIncident,
): Applied {
  const [thread, ...others] = process.threads;
  const ignored = (reason: string): Applied => ({ valid: false, reason });
  if (thread === undefined || thread.tid !== process.pid) {
    return ignored('cannot be called: the first thread has ended');
  }
  if (!programStart.isNative(thread.registers)) {
    return ignored('cannot be called: the first thread runs 32-bit code');
  }
  const { stackBase, stackSizeBytes } = delivery;
  const top = stackBase + stackSizeBytes;
  if (thread.registers.sp > BigInt(stackBase) && thread.registers.sp <= BigInt(top)) {
    return ignored('is not called: the first thread was in its crash procedure already, and goes on in it');
  }
  const frame = signalFrame.build(contextOf(process, thread), top, delivery.restorer, record.xstateOffsets);
  const first = stackBase + Math.floor((frame.address - stackBase) / PAGE_SIZE) * PAGE_SIZE;
  const stack = new Uint8Array(top - first);
  stack.set(frame.bytes, frame.address - first);
  const bytes = writeIncident(record.header, record.procedure, incident, frame.address);
  const page = { address: record.procedure.address, bytes };
  const changed = withOverrides(process, [page, { address: first, bytes: stack }]);
  const started = programStart.call(thread, delivery.entry, delivery.argument, frame.address);
  const { syscall } = process.procedureAlone === undefined ? thread : { syscall: NO_CALL };
  const threads = [{ ...thread, ...started, syscall }, ...others];
  const { procedureAlone: alone } = process;
  const ready = alone === undefined ? {} : { procedureAlone: { ...alone, isReady: true } };
  return { process: { ...changed, threads, ...ready }, procedure: record.procedure, frame: frame.address };
}

/** The call that such a process was in is neither made again nor ended. */
const NO_CALL: SyscallOutcomeRecord = {
  ...{ outcome: 'resume', syscall: undefined },
  reason: 'it comes back for its crash procedure alone',
};

const NO_STACK = { sp: 0n, sizeBytes: 0n, flags: 2 };
const ALL_SIGNALS = 0xffff_ffff_ffff_ffffn;

/** What the procedure goes on with: the interrupted context, or the end, before which no handler runs. */
function contextOf({ procedureAlone }: Process, thread: Thread): SignalContext {
  if (procedureAlone === undefined) return thread;
  const end = programStart.end(thread, procedureAlone.systemCall, notContinuedStatus);
  return { ...end, blockedSignals: ALL_SIGNALS, altStack: NO_STACK };
}

function incidentOf(process: Process, occasion: ProcedureOccasion): ProcedureIncident {
  return {
    ...occasion,
    items: procedureItems(process.findings),
    interruptedSyscall: process.threads[0]?.syscall.syscall,
    mayContinue: process.procedureAlone === undefined,
  };
}

function withOverrides(process: Process, pages: readonly PageOverride[]): Process {
  if (process.memory === undefined) return process;
  // The record and the procedure's own stack are written anew: what was to be changed there for another
  // reason no longer matters.
  const isRewritten = (address: number): boolean =>
    pages.some((page) => address >= page.address && address < page.address + page.bytes.length);
  const kept = (process.memory.overrides ?? []).filter(({ address }) => !isRewritten(address));
  const overrides = [...kept, ...pages].toSorted((a, b) => a.address - b.address);
  return { ...process, memory: { ...process.memory, overrides } };
}

/** `siginfo_t` of a signal that sigqueue(3) of the process itself would have sent. */
function siginfo(signal: number): Uint8Array {
  const info = Buffer.alloc(siginfoBytes);
  info.writeInt32LE(signal, 0);
  info.writeInt32LE(SI_QUEUE, 8);
  info.writeInt32LE(signalValue, 24);
  return info;
}
