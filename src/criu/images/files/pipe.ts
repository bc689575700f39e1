import type { MessageInitShape } from '@bufbuild/protobuf';
import type { FifoFile, GroupFiles, OpenFile, Pipe, PipeFile } from '../../../model/file.ts';
import { O_NONBLOCK } from '../../../system/abi.ts';
import type { ImageDirectory, ImageFile, PageSource } from '../image.ts';
import { type FifoEntrySchema, PipeDataEntrySchema, type PipeEntrySchema } from '../proto/gen/files_pb.ts';
import { head } from './common.ts';

/**
 * A FIFO as CRIU is told of it. It opens one for reading and writing first, so that no opening waits; who
 * reads has seen a writer then. One that must not is opened as any file is by its path, without waiting.
 */
export function openedFifo(file: FifoFile): OpenFile {
  if (!file.waitsForWriter) return file;
  const { id, flags, owner, pathFile } = file;
  return { ...pathFile, id, flags: flags | O_NONBLOCK, owner, position: undefined };
}

/** One end of an unnamed pipe. */
export function pipeEntry(file: PipeFile): MessageInitShape<typeof PipeEntrySchema> {
  return { ...head(file), pipeId: file.pipeId };
}

/** An open FIFO; its path is a file of its own. */
export function fifoEntry({ id, pipeId, pathFile }: FifoFile): MessageInitShape<typeof FifoEntrySchema> {
  return { id, pipeId, regfId: pathFile.id };
}

function writeData(image: ImageFile, source: PageSource, pipe: Pipe): void {
  image.entry(PipeDataEntrySchema, { pipeId: pipe.id, bytes: pipe.dataBytes, size: pipe.capacityBytes });
  if (pipe.dataBytes > 0) image.runs(source, pipe.data);
}

/** `pipes-data.img`: size and content of unnamed pipes. */
export function writePipes({ pipes }: GroupFiles, images: ImageDirectory, source: PageSource): void {
  for (const pipe of pipes) if (!pipe.named) writeData(images.image('pipes-data'), source, pipe);
}

/** `fifo-data.img`: size and content of FIFOs. */
export function writeFifos({ pipes }: GroupFiles, images: ImageDirectory, source: PageSource): void {
  for (const pipe of pipes) if (pipe.named) writeData(images.image('fifo-data'), source, pipe);
}
