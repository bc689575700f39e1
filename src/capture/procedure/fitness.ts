import type { SignalFrameFormat } from '../../arch/index.ts';
import type { UserMemory } from '../../linux/readers/user-memory.ts';
import { type CapturedProcedure, type DeliveryByCall, recordSizeBytes } from '../../model/crash-procedure.ts';
import { readProcedureState } from '../../model/procedure-incident.ts';
import type { ProcedureAlone, Process } from '../../model/process.ts';
import { PROT_READ, PROT_WRITE } from '../../system/abi.ts';

/** What a process is that may come back for its crash procedure alone. */
export interface Applicant {
  readonly process: Process;
  /** Undefined if it has no record. */
  readonly record: CapturedProcedure | undefined;
  readonly isSandboxed: boolean;
  readonly user: Pick<UserMemory, 'read'>;
  readonly restorers: SignalFrameFormat['restorers'];
}

/** Where it can be ended. */
type End = Pick<ProcedureAlone, 'systemCall'>;

/**
 * What a process needs to come back for its procedure alone, or why it cannot; the reason goes on after "the
 * process ". A procedure that is called by a signal returns to where the signal came, which is where the
 * process may not go on.
 */
export function procedureFitness(applicant: Applicant): End | string {
  const { process, record } = applicant;
  if (applicant.isSandboxed) return 'is in a sandbox, where no crash procedure is called';
  if (process.state !== 'alive') return `is ${process.state}, and would not run it`;
  if (record === undefined) return 'has no record of one';
  if (!record.valid) return `has a record that ${record.reason}`;
  const { delivery } = record.procedure;
  if (delivery.kind === 'signal') return 'has one that is delivered by a signal, not by a call';
  const problem = problemOfThread(process, record.header, delivery);
  if (problem !== undefined) return problem;
  const end = endOf(applicant, delivery.restorer);
  if (typeof end !== 'string' && isRewritten(end, delivery, record.procedure.address))
    return 'has its restorer on the stack of its procedure or in its record, which are written anew';
  return end;
}

/** `syscall` */
const SYSCALL_BYTES = 2;
const USABLE = PROT_READ | PROT_WRITE;

type Stack = Pick<DeliveryByCall, 'stackBase' | 'stackSizeBytes'>;

function problemOfThread(
  { pid, threads, memory }: Process,
  header: Uint8Array,
  { stackBase, stackSizeBytes }: Stack,
): string | undefined {
  const [first] = threads;
  if (first === undefined || first.tid !== pid) return 'has lost its first thread';
  const { sp, fsBase } = first.registers;
  const isOnStack = sp > BigInt(stackBase) && sp <= BigInt(stackBase + stackSizeBytes);
  // Where nothing has its registers, the record tells.
  if (isOnStack || readProcedureState(header).state === 'delivered')
    return 'was in its crash procedure already';
  // A filter may be against the call that ends it.
  if (first.seccomp !== undefined) return 'has filters of its system calls (seccomp)';
  // What is lost cannot be touched.
  const isMapped = (address: bigint): boolean =>
    memory?.vmas.some(
      ({ start, end, prot }) =>
        address >= BigInt(start) && address < BigInt(end) && (prot & USABLE) === USABLE,
    ) === true;
  const needed = [fsBase, first.rseq?.pointer ?? 0n].filter((address) => address !== 0n);
  return needed.every(isMapped) ? undefined : 'has its thread-local storage in memory that is gone';
}

/** Whether its restorer, up to the system call, is where other bytes will be. */
function isRewritten(
  { systemCall }: End,
  { restorer, stackBase, stackSizeBytes }: DeliveryByCall,
  record: number,
): boolean {
  const hits = (start: number, bytes: number): boolean =>
    restorer < start + bytes && systemCall + SYSCALL_BYTES > start;
  return hits(stackBase, stackSizeBytes) || hits(record, recordSizeBytes);
}

/** Where it ends instead of going on: its restorer has to be one, to the byte. */
function endOf({ user, restorers }: Applicant, restorer: number): End | string {
  let why = 'it is not "mov $15, %rax; syscall"';
  for (const { code, systemCall } of restorers) {
    const found = user.read(BigInt(restorer), code.length);
    if (found.kind === 'unknown') why = found.why;
    if (found.kind === 'bytes' && found.bytes.equals(code)) return { systemCall: restorer + systemCall };
  }
  return `has a restorer by which it could not be ended: ${why}`;
}
