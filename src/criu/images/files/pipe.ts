import type { OpenFile, Pipe } from '../../../model/file.ts';
import type { ImageDirectory, PageSource } from '../image.ts';
import { PipeDataEntrySchema } from '../proto/gen/files_pb.ts';

const O_NONBLOCK = 0o4000;

/**
 * A FIFO as CRIU is told of it. It opens one for reading and writing first, so that no opening waits; who reads has seen a writer then. One that must
 * not is opened as any file is by its path, without waiting.
 */
export function openedFifo(file: OpenFile): OpenFile {
  if (file.type !== 'fifo' || !file.waitsForWriter) return file;
  const { id, flags, owner, pathFile } = file;
  return { ...pathFile, id, flags: flags | O_NONBLOCK, owner, position: undefined };
}

/** Size and content of a pipe, in `pipes-data.img` or, of a FIFO, in `fifo-data.img`. */
export function writePipeData(images: ImageDirectory, source: PageSource, pipe: Pipe): void {
  const image = images.image(pipe.named ? 'fifo-data' : 'pipes-data');
  image.entry(PipeDataEntrySchema, { pipeId: pipe.id, bytes: pipe.dataBytes, size: pipe.capacityBytes });
  if (pipe.dataBytes > 0) image.runs(source, pipe.data);
}
