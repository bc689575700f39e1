import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ContentOnDisk, GhostFile, GroupFiles } from '../../../model/file.ts';
import type { PathFile } from '../../../model/open-file.ts';
import { contentRuns } from '../../../model/page-runs.ts';
import { fileType, typeOf } from '../../../system/file-mode.ts';
import { type ImageDirectory, type ImageFile, ImageWriteError, type PageSource } from '../image.ts';
import {
  GhostChunkEntrySchema,
  GhostFileEntrySchema,
  type RegFileEntrySchema,
  RemapFilePathEntrySchema,
  RemapType,
} from '../proto/gen/regfile_pb.ts';
import { head } from './common.ts';

/** Position that tells CRIU not to seek. */
const NO_SEEK = 0xffff_ffff_ffff_ffffn;

/** A file that is opened by its path. No size: files go on growing while other groups are restored. */
export function regFile(file: PathFile): MessageInitShape<typeof RegFileEntrySchema> {
  return { ...head(file), pos: file.position ?? NO_SEEK, name: file.path, mode: file.identity.mode };
}

/** Says of a file without a name where its content is. */
export function writeRemap(images: ImageDirectory, { id, ghostId }: PathFile): void {
  if (ghostId === undefined) return;
  images
    .image('remap-fpath')
    .entry(RemapFilePathEntrySchema, { origId: id, remapId: ghostId, remapType: RemapType.GHOST });
}

/** Times before 1970 become 1970: CRIU's entry has no sign. */
function time(moment: number): { tvSec: bigint; tvUsec: bigint } {
  const microseconds = Math.max(0, moment);
  return { tvSec: BigInt(Math.floor(microseconds / 1e6)), tvUsec: BigInt(microseconds % 1e6) };
}

function writeGhost(images: ImageDirectory, source: PageSource, ghost: GhostFile): void {
  const { uid, gid, mode, sizeBytes, rdev, inode } = ghost.identity;
  const isRegular = typeOf(mode) === fileType.regular;
  const image = images.image('ghost-file', ghost.id);
  image.entry(GhostFileEntrySchema, {
    uid,
    gid,
    mode,
    ino: BigInt(inode),
    ...(rdev === 0 ? {} : { rdev }),
    atim: time(ghost.accessedMicroseconds),
    mtim: time(ghost.modifiedMicroseconds),
    ...(isRegular ? { chunks: true, size: BigInt(sizeBytes) } : {}),
  });
  if (!isRegular) return;
  for (const { offset, physical, length } of contentRuns(ghost.runs, sizeBytes)) {
    image.entry(GhostChunkEntrySchema, { len: BigInt(length), off: BigInt(offset) });
    image.runs(source, [{ physical, length }]);
  }
  if (ghost.onDisk !== undefined) writeContentOnDisk(image, ghost.onDisk);
}

/** Bytes of a file that are held in memory at a time. */
const PIECE = 1 << 20;

/** Throws an ImageWriteError if the file is another one by now, or ends before the ranges do. */
function writeContentOnDisk(image: ImageFile, { path, inode, ranges }: ContentOnDisk): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    if (fstatSync(fd).ino !== inode) throw new ImageWriteError(image.path, `${path} is another file now`);
    const buffer = Buffer.allocUnsafe(PIECE);
    for (const { offset, length } of ranges) {
      image.entry(GhostChunkEntrySchema, { len: BigInt(length), off: BigInt(offset) });
      for (let done = 0; done < length; ) {
        const count = readSync(fd, buffer, 0, Math.min(PIECE, length - done), offset + done);
        if (count === 0) throw new ImageWriteError(image.path, `${path} ends at byte ${offset + done}`);
        image.bytes(buffer.subarray(0, count));
        done += count;
      }
    }
  } finally {
    closeSync(fd);
  }
}

/**
 * `ghost-file-ID.img`: the content in chunks, holes left out. Throws an ImageWriteError, or the file system's
 * error, if part of it cannot be had.
 */
export function writeGhosts({ ghosts }: GroupFiles, images: ImageDirectory, source: PageSource): void {
  for (const ghost of ghosts) writeGhost(images, source, ghost);
}
