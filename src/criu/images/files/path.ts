import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ContentOnDisk, GhostFile, GroupFiles } from '../../../model/file.ts';
import type { PathFile } from '../../../model/open-file.ts';
import { contentRuns } from '../../../model/page-runs.ts';
import { fileType, typeOf } from '../../../system/file-mode.ts';
import { type ImageDirectory, type ImageFile, ImageWriteError, type PageSource } from '../image.ts';
import { handedInAs } from '../plan/deleted-files.ts';
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

/** Of an open file it says how it was opened, and means nothing from then on. A link of /proc is one. */
const O_NOFOLLOW = 0o400000;

/**
 * A file that is opened by its path, or through a descriptor. No size: files go on growing while other groups
 * are restored.
 */
export function regFile(file: PathFile): MessageInitShape<typeof RegFileEntrySchema> {
  const { ghostId, isOwnMake, path, position, identity } = file;
  const entry = { ...head(file), pos: position ?? NO_SEEK, mode: identity.mode };
  if (ghostId === undefined || isOwnMake !== true) return { ...entry, name: path };
  return { ...entry, flags: entry.flags & ~O_NOFOLLOW, name: handedInAs(ghostId), ext: true };
}

/** Says of a file without a name where its content is. */
export function writeRemap(images: ImageDirectory, { id, ghostId, isOwnMake }: PathFile): void {
  if (ghostId === undefined || isOwnMake === true) return;
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
  const begin = ({ offset, length }: { readonly offset: number; readonly length: number }): void =>
    image.entry(GhostChunkEntrySchema, { len: BigInt(length), off: BigInt(offset) });
  for (const { offset, physical, length } of contentRuns(ghost.runs, sizeBytes)) {
    begin({ offset, length });
    image.runs(source, [{ physical, length }]);
  }
  if (ghost.onDisk !== undefined) writeContentOnDisk(image, ghost.onDisk, begin);
}

/** Bytes of a file that are held in memory at a time. */
const PIECE = 1 << 20;

/**
 * Appends what a copy of a file has.
 * @param begin is told of each piece before its bytes
 * @throws ImageWriteError if the file is another one by now, or ends before the ranges do
 */
export function writeContentOnDisk(
  image: ImageFile,
  { path, inode, ranges }: ContentOnDisk,
  begin: (piece: { readonly offset: number; readonly length: number }) => void,
): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    if (fstatSync(fd).ino !== inode) throw new ImageWriteError(image.path, `${path} is another file now`);
    const buffer = Buffer.allocUnsafe(PIECE);
    for (const { offset, length } of ranges) {
      begin({ offset, length });
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
  for (const ghost of ghosts) if (ghost.ownMake === undefined) writeGhost(images, source, ghost);
}
