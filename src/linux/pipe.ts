import { PAGE_SIZE } from '../system/page.ts';
import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { optional, pointer, struct, u32, type ViewOf } from '../vmcore/view.ts';
import { settled } from './container.ts';
import { fmode } from './file.ts';
import type { File } from './fs.ts';
import { pageFrames } from './mm.ts';

/**
 * `struct pipe_inode_info` (include/linux/pipe_fs_i.h; this module is named after fs/pipe.c, which all layers
 * call it by).
 */
export const pipeInodeInfo = struct('pipe_inode_info', {
  head: u32,
  tail: u32,
  max_usage: u32,
  ring_size: u32,
  readers: u32,
  writers: u32,
  files: u32,
  w_counter: u32,
  bufs: pointer,
  watch_queue: optional(pointer),
});

export type PipeInodeInfo = ViewOf<typeof pipeInodeInfo>;

/**
 * Whether a FIFO was opened for reading when nobody had it open for writing, and nobody has since: such a
 * reader is not told that the other side has hung up (pipe_poll, fs/pipe.c).
 */
export function waitsForWriter(file: File, { writers, w_counter }: PipeInodeInfo): boolean {
  const isReader = (file.f_mode & fmode.read) !== 0 && (file.f_mode & fmode.write) === 0;
  if (!isReader || writers !== 0) return false;
  return file.pipeWriters === BigInt(w_counter);
}

export const pipeBuffer = struct('pipe_buffer', { page: pointer, offset: u32, len: u32, flags: u32 });

/** More slots than fs.pipe-max-size allows root to ask for (2^31 bytes, fs/pipe.c round_pipe_size). */
const MAX_RING = 1 << 19;
const PIPE_BUF_FLAG_PACKET = 0x08;

/** Bytes of a pipe that nobody has read yet. */
export interface PipeContent {
  /** In the order in which they will be read. */
  readonly buffers: readonly {
    readonly physical: number;
    readonly length: number;
    readonly packet: boolean;
  }[];
  readonly bytes: number;
}

/**
 * What is in a pipe's ring between tail and head. Throws a ContainerError if the ring's size is no power of
 * two, if more slots are used than there are, or if a buffer does not lie within a page (or a compound page
 * of at most 2 MiB).
 */
export function pipeContent(kernel: Kernel, { address }: PipeInodeInfo): PipeContent {
  return settled(kernel, () => readContent(kernel, kernel.bind(pipeInodeInfo).at(address)));
}

function readContent(kernel: Kernel, pipe: PipeInodeInfo): PipeContent {
  const buffers = [];
  let bytes = 0;
  for (const { page, offset, len, flags } of pipeBuffers(kernel, pipe)) {
    const physical = pageFrames(kernel, page, Math.ceil((offset + len) / PAGE_SIZE), 'pipe buffer') + offset;
    buffers.push({ physical, length: len, packet: (flags & PIPE_BUF_FLAG_PACKET) !== 0 });
    bytes += len;
  }
  return { buffers, bytes };
}

/**
 * The buffers of a pipe's ring between tail and head that are not empty, in their order. Throws as {@link
 * pipeContent} does.
 */
export function pipeBuffers(kernel: Kernel, pipe: PipeInodeInfo): ViewOf<typeof pipeBuffer>[] {
  const { ring_size: ring, head, tail } = pipe;
  const used = (head - tail) >>> 0;
  if (ring === 0 || ring > MAX_RING || (ring & (ring - 1)) !== 0 || used > ring || pipe.max_usage > ring) {
    throw new ContainerError('pipe', pipe.address, `has ${used} buffers in a ring of ${ring}`);
  }
  const Buffer = kernel.bind(pipeBuffer);
  const buffers = Array.from({ length: used }, (_, i) => {
    const slot = ((tail + i) >>> 0) & (ring - 1);
    const buffer = Buffer.at(pipe.bufs + BigInt(slot * Buffer.size));
    const { page, offset, len } = buffer;
    if (offset + len > 512 * PAGE_SIZE) {
      throw new ContainerError('pipe', pipe.address, `has a buffer of ${len} bytes at ${offset}`);
    }
    if (page === 0n)
      throw new ContainerError('pipe', pipe.address, `has no page in slot ${slot}, which is in use`);
    return buffer;
  });
  return buffers.filter(({ len }) => len > 0);
}
