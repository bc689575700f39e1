import type { File } from '../../../linux/fs.ts';
import { socketStruct } from '../../../linux/net.ts';
import { type FileKind, fileKind } from '../../../linux/readers/file-kind.ts';
import { ttyOfFile } from '../../../linux/tty.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';

/** What two open files of a kind can share, by the kind. */
const objects: Readonly<Partial<Record<FileKind, (kernel: Kernel, file: File) => bigint>>> = {
  pipe: (_, file) => file.private_data,
  socket: (kernel, file) => kernel.bind(socketStruct).at(file.private_data).sk,
  tty: (kernel, file) => ttyOfFile(kernel, file).address,
  'hung-up-tty': (kernel, file) => ttyOfFile(kernel, file).address,
};

/** What a file is, and the address of the object behind it if other files can lead there as well. */
export function sharedObject(kernel: Kernel, file: File): { kind?: FileKind; object?: bigint } {
  if (file.private_data === 0n) return {};
  const kind = fileKind(kernel, file.f_op);
  return kind === undefined ? {} : { kind, object: objects[kind]?.(kernel, file) };
}
