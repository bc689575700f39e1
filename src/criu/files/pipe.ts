import type { Pipe } from '../../model/file.ts';
import type { ImageDirectory, PageSource } from '../image.ts';
import { PipeDataEntrySchema } from '../proto/gen/files_pb.ts';

/** Size and content of a pipe, in `pipes-data.img` or, of a FIFO, in `fifo-data.img`. */
export function writePipeData(images: ImageDirectory, source: PageSource, pipe: Pipe): void {
  const image = images.image(pipe.named ? 'fifo-data' : 'pipes-data');
  image.entry(PipeDataEntrySchema, { pipeId: pipe.id, bytes: pipe.dataBytes, size: pipe.capacityBytes });
  if (pipe.dataBytes > 0) image.runs(source, pipe.data);
}
