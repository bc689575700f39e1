import type { ProcessGroup } from '../../model/group.ts';
import type { ImageDirectory } from './image.ts';
import { TimensEntrySchema } from './proto/gen/timens_pb.ts';

const SECOND = 1_000_000_000n;

function timespec(nanoseconds: bigint): { tvSec: bigint; tvNsec: bigint } {
  return { tvSec: nanoseconds / SECOND, tvNsec: nanoseconds % SECOND };
}

/** Writes `timens-0.img`: what the clocks said at the panic. */
export function writeClocks({ clocks }: Pick<ProcessGroup, 'clocks'>, images: ImageDirectory): void {
  images.image('timens', 0).entry(TimensEntrySchema, {
    monotonic: timespec(clocks.monotonic),
    boottime: timespec(clocks.boottime),
  });
}
