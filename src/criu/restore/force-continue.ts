import { closeSync, openSync, writeSync } from 'node:fs';
import { runningArchitecture } from '../../arch/index.ts';
import { type CrashProcedure, recordLayout } from '../../model/crash-procedure.ts';
import { abandonedState } from '../../model/procedure-incident.ts';
import { errnoText } from '../../system/errno.ts';
import {
  __WALL,
  PTRACE_DETACH,
  PTRACE_GETREGS,
  PTRACE_INTERRUPT,
  PTRACE_SEIZE,
  PTRACE_SETREGS,
  ptrace,
  ptraceNumber,
  waitpid,
} from '../../system/ptrace.ts';

const { ptraceRegisters: offsets, signalFrame } = runningArchitecture();

/** A process could not be taken out of its procedure; the message names the step. */
export class ForceContinueError extends Error {
  override readonly name = 'ForceContinueError';
}

/**
 * Ends a crash procedure that is still running, from outside: the first thread goes on where the kernel's
 * death interrupted it, as if the procedure had returned. Memory that the procedure has changed stays
 * changed, locks that it holds stay held. Throws a ForceContinueError if the process cannot be stopped.
 *
 * @param frame user address of the interrupted context on the procedure's stack
 */
export function forceContinue(pid: number, procedure: CrashProcedure, frame: number): void {
  if (procedure.delivery.kind !== 'call') return;
  attempt('seize', ptraceNumber(PTRACE_SEIZE, pid, 0, 0));
  try {
    attempt('interrupt', ptraceNumber(PTRACE_INTERRUPT, pid, 0, 0));
    attempt('stop', waitpid(pid, Buffer.alloc(4), __WALL));
    abandonRecord(pid, procedure.address);
    const registers = Buffer.alloc(offsets.bytes);
    attempt('read the registers of', ptrace(PTRACE_GETREGS, pid, 0, registers));
    registers.writeBigUInt64LE(BigInt(procedure.delivery.restorer), offsets.instructionPointer);
    // As after the procedure's return, which takes the restorer's address off the stack.
    registers.writeBigUInt64LE(BigInt(frame + signalFrame.returnAddressBytes), offsets.stackPointer);
    // Not in a system call any more: nothing is to be restarted.
    registers.writeBigInt64LE(-1n, offsets.current);
    attempt('set the registers of', ptrace(PTRACE_SETREGS, pid, 0, registers));
  } finally {
    ptraceNumber(PTRACE_DETACH, pid, 0, 0);
  }
}

/**
 * Marks the record of a process: nobody waits for its procedure any more, and `otherworld_continue` does
 * nothing. Throws the file system's error if the process is gone.
 */
export function abandonRecord(pid: number, recordAddress: number): void {
  const state = Buffer.alloc(4);
  state.writeUInt32LE(abandonedState);
  const memory = openSync(`/proc/${pid}/mem`, 'r+');
  try {
    writeSync(memory, state, 0, state.length, recordAddress + recordLayout.state);
  } finally {
    closeSync(memory);
  }
}

function attempt(what: string, result: number): void {
  if (result < 0) throw new ForceContinueError(`cannot ${what} the process (${errnoText(-result)})`);
}
