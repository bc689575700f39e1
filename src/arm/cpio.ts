import { Buffer } from 'node:buffer';
import { fileType } from '../system/file-mode.ts';
import { ArmError } from './errors.ts';

/** One member of an initramfs archive; paths have no leading slash. */
export interface CpioEntry {
  readonly path: string;
  /** Permissions; those of a symbolic link do not matter. */
  readonly mode: number;
  /** The content of a file, or where a symbolic link leads. */
  readonly data: Uint8Array;
  readonly kind?: 'file' | 'link';
}

const MAGIC = '070701';
const HEADER_BYTES = 110;
const TRAILER = 'TRAILER!!!';

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}

function member(index: number, name: string, mode: number, data: Uint8Array): Buffer[] {
  const fields = [index, mode, 0, 0, 1, 0, data.length, ...[0, 0, 0, 0], Buffer.byteLength(name) + 1, 0];
  const header = `${MAGIC}${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${name}\0`;
  const head = Buffer.from(header);
  return [
    head,
    padding(head.length),
    Buffer.from(data.buffer, data.byteOffset, data.byteLength),
    padding(data.length),
  ];
}

/**
 * An uncompressed archive as the kernel unpacks it
 * (Documentation/driver-api/early-userspace/buffer-format.rst, "newc"): everything belongs to root,
 * directories above the files are made with mode 0700. The parts are to be written one after the other; the
 * kernel takes several archives in a row if each begins on a multiple of 4.
 */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer[] {
  const directories = new Set(entries.flatMap((entry) => parentsOf(entry.path)));
  const nothing = new Uint8Array();
  let index = 1;
  return [
    ...[...directories].flatMap((path) => member(index++, path, fileType.directory | 0o700, nothing)),
    ...entries.flatMap(({ path, kind, mode, data }) =>
      member(index++, path, (kind === 'link' ? fileType.symlink : fileType.regular) | mode, data),
    ),
    ...member(0, TRAILER, 0, nothing),
  ];
}

/** Whether an archive begins at an offset. */
export function isCpioArchive(file: Buffer, at: number): boolean {
  return file.toString('latin1', at, at + MAGIC.length) === MAGIC;
}

/**
 * Where the archive that begins at an offset ends: behind its trailer.
 * @throws ArmError if it is cut off
 */
export function archiveEnd(file: Buffer, start: number): number {
  let at = start;
  while (isCpioArchive(file, at)) {
    const field = (index: number): number =>
      Number.parseInt(file.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    const [size, nameLength] = [field(6), field(11)];
    const name = file.toString('latin1', at + HEADER_BYTES, at + HEADER_BYTES + nameLength - 1);
    const data = start + aligned(at + HEADER_BYTES + nameLength - start);
    at = start + aligned(data + size - start);
    if (name === TRAILER) return at;
  }
  throw new ArmError('an archive of the initramfs is cut off');
}

function aligned(length: number): number {
  return Math.ceil(length / 4) * 4;
}

function parentsOf(path: string): string[] {
  const parts = path.split('/').slice(0, -1);
  return parts.map((_, depth) => parts.slice(0, depth + 1).join('/'));
}
