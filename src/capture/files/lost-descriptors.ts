import type { FileDescriptor, OpenFile } from '../../model/file.ts';
import type { PathFile } from '../../model/open-file.ts';
import { placeholderFile } from '../../model/placeholder.ts';
import type { CaptureContext } from './context.ts';

/** F_OWNER_TID: signals about a file go to one thread. */
const OWNER_TID = 0;

/** Standard input, output and error. */
const STANDARD_STREAMS = 3;

/** The descriptors without which processes come back for their procedure alone. */
export class LostDescriptors {
  readonly #context: CaptureContext;
  readonly #lost = new Map<number, Set<number>>();
  #placeholder: PathFile | undefined;

  constructor(context: CaptureContext) {
    this.#context = context;
  }

  has(pid: number, fd: number): boolean {
    return this.#lost.get(pid)?.has(fd) === true;
  }

  /**
   * Loses one: its number stays taken, and an exec closes it. One of the standard streams stays: the first
   * file that the next program opens would get its number, and what is written there.
   * @param why goes on after "it", which is the process: `has an open io_uring`
   */
  lose(pid: number, fd: number, why: string): FileDescriptor {
    this.#lost.set(pid, (this.#lost.get(pid) ?? new Set()).add(fd));
    this.#context.loseUnexpectedly(pid, {
      ...{ kind: 'descriptors', of: `fd ${fd}`, fd },
      what: `fd ${fd} is gone: it ${why}`,
    });
    if (this.#placeholder === undefined) {
      this.#placeholder = placeholderFile(this.#context.nextId());
      this.#context.files.set(this.#placeholder.id, this.#placeholder);
    }
    return { fd, fileId: this.#placeholder.id, closeOnExec: fd >= STANDARD_STREAMS };
  }

  /** The descriptors of a process, of which those are lost as well that cannot be without the lost ones. */
  closure(pid: number, descriptors: readonly FileDescriptor[]): FileDescriptor[] {
    const files = descriptors.map(({ fileId }) => this.#context.files.get(fileId));
    const isKept = (i: number): boolean => !this.has(pid, descriptors[i]?.fd ?? -1);
    const sockets = new Set(
      files.flatMap((file, i) => (file?.type === 'unix' && isKept(i) ? [file.inode] : [])),
    );
    let isLarger = false;
    const closed = descriptors.map((descriptor, i): FileDescriptor => {
      const why = isKept(i) ? this.#needs(pid, files[i], sockets) : undefined;
      if (why === undefined) return descriptor;
      isLarger = true;
      return this.lose(pid, descriptor.fd, why);
    });
    return isLarger ? this.closure(pid, closed) : closed;
  }

  /** What a file that is kept cannot be without. */
  #needs(pid: number, file: OpenFile | undefined, sockets: ReadonlySet<number>): string | undefined {
    if (file === undefined) return undefined;
    const { pidType, pid: owner } = file.owner;
    if (pidType === OWNER_TID && owner !== 0 && owner !== pid)
      return `has thread ${owner}, which is gone, get the signals about it (F_SETOWN_EX)`;
    if (file.type === 'unix' && file.peerInode !== 0 && !sockets.has(file.peerInode))
      return 'has a unix socket whose other end is gone';
    if (file.type !== 'eventpoll') return undefined;
    const watched = file.targets.find(({ fd }) => this.has(pid, fd));
    return watched === undefined ? undefined : `has an epoll that watches fd ${watched.fd}, which is gone`;
  }
}
