import { resolvePath } from '../../linux/dcache.ts';
import { fileAt, openFlags } from '../../linux/file.ts';
import { type File, inodeStruct } from '../../linux/fs.ts';
import { type PipeInodeInfo, pipeContent, pipeInodeInfo, waitsForWriter } from '../../linux/pipe.ts';
import type { FifoFile, Pipe, PipeFile } from '../../model/file.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import type { CaptureContext } from './context.ts';
import type { GroupSelection } from './kind.ts';
import { capturePathFile } from './path/path.ts';
import { FileRefusal } from './refusal.ts';

/** Pipes and FIFOs, by the number of their inode. */
class Pipes {
  readonly byId = new Map<number, Pipe>();
}

/** What is in a group's pipes and FIFOs. */
export function pipesOf({ context, files }: GroupSelection): Pipe[] {
  const ids = new Set(files.flatMap((file) => ('pipeId' in file ? [file.pipeId] : [])));
  return [...context.of(Pipes).byId.values()].filter(({ id }) => ids.has(id));
}

/**
 * See `waitsForWriter`. Such an end cannot be made again together with one that has seen a writer, nor with
 * data in the FIFO: each needs a writer for a moment. Throws a FileRefusal then.
 */
function waitsForFirstWriter(context: CaptureContext, file: File, pipe: PipeInodeInfo): boolean {
  const { kernel, system } = context;
  if (!waitsForWriter(file, pipe)) return false;
  const all = new Set(system.holdersOfObject(pipe.address).map((holder) => holder.file));
  const others = [...all].map((address) => fileAt(kernel, address));
  if (
    pipe.head !== pipe.tail ||
    others.some((other) => other === undefined || !waitsForWriter(other, pipe))
  ) {
    throw new FileRefusal('has a FIFO whose writers had gone when it was opened once more');
  }
  return true;
}

/**
 * One end of a pipe or a FIFO, with what is in it. Throws a FileRefusal if another process that is not
 * protected holds an end, if an end is held by nobody that could be found, or if the pipe is in packet mode.
 */
export function capturePipe(context: CaptureContext, file: File): PipeFile | FifoFile {
  const { kernel } = context;
  const pipe = kernel.bind(pipeInodeInfo).at(file.private_data);
  const inode = kernel.bind(inodeStruct).at(file.f_inode);
  if (inode.i_pipe !== pipe.address)
    throw FileRefusal.damaged('has a pipe whose inode leads to another pipe');
  const named = resolvePath(kernel, file.f_mnt, file.f_dentry).root !== 'internal';
  const holders = context.system.holdersOfObject(pipe.address);
  context.shareAmong(holders, named ? 'a FIFO' : 'a pipe');
  const files = new Set(holders.map((holder) => holder.file)).size;
  const counted = pipe.files - context.system.closedFiles(pipe.address);
  if (files > counted) {
    throw FileRefusal.damaged(`has a pipe that is damaged: ${files} ends are held, but it counts ${counted}`);
  }
  if (files < counted) {
    throw new FileRefusal(`has a pipe with ${counted} ends, of which only ${files} are held by a process`);
  }
  if ((file.f_flags & openFlags.direct) !== 0) throw new FileRefusal('has a pipe in packet mode (O_DIRECT)');
  if ((pipe.watch_queue ?? 0n) !== 0n) throw new FileRefusal('has a pipe for notifications of the kernel');
  const id = inode.i_ino;
  const { byId } = context.of(Pipes);
  if (!byId.has(id)) {
    const { buffers, bytes } = pipeContent(kernel, pipe);
    if (buffers.some(({ packet }) => packet)) throw new FileRefusal('has a pipe with packets in it');
    const data = buffers.map(({ physical, length }) => ({ physical, length }));
    byId.set(id, { id, named, capacityBytes: pipe.max_usage * PAGE_SIZE, data, dataBytes: bytes });
  }
  if (!named) return { type: 'pipe', ...context.common(file), pipeId: id };
  return {
    ...{ type: 'fifo', ...context.common(file), pipeId: id, pathFile: capturePathFile(context, file) },
    waitsForWriter: waitsForFirstWriter(context, file, pipe),
  };
}
