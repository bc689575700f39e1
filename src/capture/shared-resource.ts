import type { ProcessGroup } from '../model/group.ts';
import type { CaptureContext } from './files/context.ts';

/** Something that processes meet in and that no open file stands for. */
export interface SharedResource {
  /**
   * Finds out who uses it: joins those who have to come back together, refuses those who cannot, and notes
   * what others lose. Called once, when all file tables are captured. Throws nothing for what is damaged.
   */
  collect(context: CaptureContext): void;
  /**
   * What of it went with the kernel, for the report of the incident; sentences. Called when every
   * group has its parts; of a group that is refused for another reason later, its own reasons tell.
   */
  losses(context: CaptureContext): readonly string[];
}

/** What a group of processes shares besides its files. */
export type SharedParts = Omit<ProcessGroup, 'id' | 'freePid' | 'processes' | 'files' | 'clocks'>;
