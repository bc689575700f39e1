import type { MessageInitShape } from '@bufbuild/protobuf';
import type { FileOwner, OpenFileCommon } from '../../../model/open-file.ts';
import { O_CLOEXEC } from '../../../system/abi.ts';
import type { FownEntrySchema } from '../proto/gen/regfile_pb.ts';

export function fown({
  uid,
  euid,
  signal,
  pidType,
  pid,
}: FileOwner): MessageInitShape<typeof FownEntrySchema> {
  return { uid, euid, signum: signal, pidType, pid };
}

/** The fields that most entries begin with; CRIU opens files with the flags as they are. */
export function head({ id, flags, owner }: OpenFileCommon): {
  id: number;
  flags: number;
  fown: MessageInitShape<typeof FownEntrySchema>;
} {
  return { id, flags: flags & ~O_CLOEXEC, fown: fown(owner) };
}
