import type { GroupFiles } from './file.ts';
import type { SharedMemory } from './memory.ts';
import type { MessageQueue } from './message-queue.ts';
import type { Process } from './process.ts';
import type { Sandbox } from './sandbox.ts';
import type { SharedSegment } from './segment.ts';
import type { SemaphoreSet } from './semaphore-set.ts';
import type { Refusal } from './verdict.ts';

/** Why two processes have to be restored together. */
export interface SharingEdge {
  readonly pids: readonly [number, number];
  /** `parent`, `session`, `pipe 4711`, `unix socket`, `shared memory` ... */
  readonly why: string;
}

/** Nanoseconds of the dead kernel's clocks at the panic. */
export interface ClockReadings {
  readonly monotonic: bigint;
  readonly boottime: bigint;
}

/** Processes that share things and are restored by one `criu restore`. */
export interface ProcessGroup {
  /** Pid of the first root; unique among the groups of an incident. */
  readonly id: number;
  /** A process id that nobody had on the dead kernel: for the fabricated parent that some groups need. */
  readonly freePid: number;
  /** Parents before their children. */
  readonly processes: readonly Process[];
  readonly files: GroupFiles;
  readonly sharedMemory: readonly SharedMemory[];
  readonly segments: readonly SharedSegment[];
  readonly semaphores: readonly SemaphoreSet[];
  readonly messageQueues: readonly MessageQueue[];
  readonly clocks: ClockReadings;
  /** How long its io_urings take to be made again, after CRIU; 0 if not given. */
  readonly ringSeconds?: number;
  /** The sandbox that all of them were in; their paths are those that they see. */
  readonly sandbox?: Sandbox;
}

/** A process that was ending when its kernel died, and is gone. */
export interface EndedProcess {
  readonly pid: number;
  readonly comm: string;
  /** Sentences for the report. */
  readonly notes: readonly string[];
}

/** All that was captured of a dead kernel's protected processes. */
export interface CaptureResult {
  readonly groups: readonly ProcessGroup[];
  readonly refused: readonly Refusal[];
  /** Processes that were ending at the panic, and for which nobody waits: they are gone. */
  readonly ended: readonly EndedProcess[];
  /** What ties each process to others of them, by pid; a process that shares nothing is not there. */
  readonly ties: ReadonlyMap<number, readonly SharingEdge[]>;
  /**
   * Pairs of processes of which each comes back at its own time, and only if the other one may. What is
   * refused after the capture is to be carried over them.
   */
  readonly dependences: readonly SharingEdge[];
  /** What was lost with the kernel, whoever it concerns. */
  readonly notes: readonly string[];
}
