import { closeSync, constants, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { create, type DescMessage, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import type { PhysicalRun } from '../../model/open-file.ts';
import { seek } from '../../system/descriptors.ts';
import { codeOf, messageOf } from '../../system/thrown.ts';
import { hexadecimalIds, type ImageName, imageMagic } from './image-names.ts';

/** First word of every image but the inventory (criu/include/magic.h). */
const IMG_COMMON_MAGIC = 0x54564319;

/** Runs that are handed on at a time: bounds the memory for the list, not the copy. */
export const MAX_RUNS = 4096;

/** Source of page contents; `PhysicalMemory` of src/vmcore is one. */
export interface PageSource {
  /**
   * Writes the runs one after the other to the file descriptor, without a copy in JavaScript; returns the
   * bytes.
   */
  writeRuns(fd: number, runs: readonly PhysicalRun[]): number;
}

/** Images are new files: nobody's link, and none of another capture. */
const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
/** One of them once more: nobody else can write to the directory. */
const KNOWN_FILE = constants.O_WRONLY | constants.O_NOFOLLOW;
const SEEK_END = 2;

/** Files of a directory that are open at a time: a process may have 4096 where nobody gave it more. */
const MOST_OPEN = 256;

/** One image file, for appending. */
export class ImageFile {
  readonly path: string;
  readonly #opened: (file: ImageFile) => void;
  #fd: number | undefined;
  #sizeBytes = 0;
  #isClosed = false;

  /** @param opened is called whenever a descriptor of the file is opened; `rest` takes it away again */
  constructor(path: string, words: readonly number[], opened: (file: ImageFile) => void = () => undefined) {
    this.path = path;
    this.#opened = opened;
    this.#fd = openSync(path, NEW_FILE, 0o600);
    opened(this);
    const head = Buffer.alloc(4 * words.length);
    for (const [i, word] of words.entries()) {
      head.writeUInt32LE(word, 4 * i);
    }
    this.bytes(head);
  }

  /** Bytes written so far, the magic numbers included. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** A descriptor that stands at the end. */
  #descriptor(): number {
    if (this.#fd !== undefined) return this.#fd;
    if (this.#isClosed) throw new ImageWriteError(this.path, 'it is written to after its end');
    this.#fd = openSync(this.path, KNOWN_FILE);
    const end = seek(this.#fd, 0, SEEK_END);
    if (end !== this.#sizeBytes)
      throw new ImageWriteError(this.path, `it ends at ${end}, and ${this.#sizeBytes} bytes were written`);
    this.#opened(this);
    return this.#fd;
  }

  /** Closes it for now; what is written next opens it again. */
  rest(): void {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) this.#named(() => closeSync(fd));
  }

  /**
   * Appends one entry: its size as a 32-bit word, then the protobuf bytes. Throws if a required field is
   * missing.
   */
  entry<Desc extends DescMessage>(schema: Desc, fields: MessageInitShape<Desc>): void {
    const payload = toBinary(schema, create(schema, fields));
    const framed = Buffer.allocUnsafe(4 + payload.length);
    framed.writeUInt32LE(payload.length, 0);
    framed.set(payload, 4);
    this.bytes(framed);
  }

  /** Appends raw bytes, such as the content of a pipe after its entry. */
  bytes(data: Uint8Array): void {
    this.#named(() => {
      const fd = this.#descriptor();
      for (let done = 0; done < data.length; ) done += writeSync(fd, data, done, data.length - done);
    });
    this.#sizeBytes += data.length;
  }

  /**
   * Appends old memory. Throws an ImageWriteError if the file does not take all of it, and what the source
   * throws.
   */
  runs(source: PageSource, runs: Iterable<PhysicalRun>): void {
    let batch: PhysicalRun[] = [];
    for (const run of runs) {
      batch.push(run);
      if (batch.length < MAX_RUNS) continue;
      this.#batch(source, batch);
      batch = [];
    }
    if (batch.length > 0) this.#batch(source, batch);
  }

  #batch(source: PageSource, runs: readonly PhysicalRun[]): void {
    const expected = runs.reduce((sum, run) => sum + run.length, 0);
    const written = this.#named(() => source.writeRuns(this.#descriptor(), runs));
    if (written !== expected) {
      throw new ImageWriteError(this.path, `${written} of ${expected} bytes of old memory were written`);
    }
    this.#sizeBytes += written;
  }

  /** To be called when all is written. */
  close(): void {
    this.#isClosed = true;
    this.rest();
  }

  /** An error of the file system becomes one that names the file. */
  #named<T>(write: () => T): T {
    try {
      return write();
    } catch (error) {
      if (codeOf(error) === undefined) throw error;
      throw new ImageWriteError(this.path, messageOf(error));
    }
  }
}

/** An image could not be written; the message names the file. */
export class ImageWriteError extends Error {
  override readonly name = 'ImageWriteError';
  readonly path: string;

  constructor(path: string, problem: string) {
    super(`${path}: ${problem}; check the free space of the image directory`);
    this.path = path;
  }
}

/**
 * A directory of images in the making. Files are created when first asked for and closed together by `close`;
 * there may be any number of them, of which only some are open at a time. Images that several parts append to
 * (`files`, `reg-files`) are shared by asking for the same name again.
 */
export class ImageDirectory {
  readonly path: string;
  readonly #open = new Map<string, ImageFile>();
  readonly #pages: ImageFile[] = [];
  /** Those with a descriptor, the one first that got it first. */
  readonly #awake = new Set<ImageFile>();

  /** Creates the directory, readable by its owner only, if it does not exist. */
  constructor(path: string) {
    this.path = path;
    mkdirSync(path, { recursive: true, mode: 0o700 });
  }

  /** The image `NAME.img`, or `NAME-ID.img` if an id is given. */
  image(name: ImageName, id?: number | string): ImageFile {
    const magic = imageMagic[name];
    const words = name === 'inventory' ? [magic] : [IMG_COMMON_MAGIC, magic];
    return this.#file(`${name}${idSuffix(name, id)}.img`, words);
  }

  /**
   * The next of the raw page stores `pages-1.img`, `pages-2.img` ..., which have no magic number
   * (RAW_IMAGE_MAGIC).
   */
  newPages(): { readonly pagesId: number; readonly store: ImageFile } {
    const pagesId = this.#pages.length + 1;
    const store = this.#file(`pages-${pagesId}.img`, []);
    this.#pages.push(store);
    return { pagesId, store };
  }

  /** A raw file of pages of memory that CRIU does not read, under its whole name. */
  pages(name: string): ImageFile {
    const store = this.#file(name, []);
    this.#pages.push(store);
    return store;
  }

  /** Names of the files created so far. */
  get names(): string[] {
    return [...this.#open.keys()].sort();
  }

  /** Bytes in all files created so far. */
  get sizeBytes(): number {
    return sizeOf(this.#open.values());
  }

  /** Those of them that are pages of memory. */
  get pagesBytes(): number {
    return sizeOf(this.#pages);
  }

  close(): void {
    for (const file of this.#open.values()) {
      file.close();
    }
  }

  #file(name: string, words: readonly number[]): ImageFile {
    let file = this.#open.get(name);
    if (file === undefined) {
      file = new ImageFile(join(this.path, name), words, (opened) => this.#wake(opened));
      this.#open.set(name, file);
    }
    return file;
  }

  #wake(opened: ImageFile): void {
    this.#awake.add(opened);
    for (const file of this.#awake) {
      if (this.#awake.size <= MOST_OPEN) break;
      this.#awake.delete(file);
      file.rest();
    }
  }
}

function sizeOf(files: Iterable<ImageFile>): number {
  return [...files].reduce((sum, file) => sum + file.sizeBytes, 0);
}

function idSuffix(name: ImageName, id: number | string | undefined): string {
  if (id === undefined) {
    return '';
  }
  return `-${typeof id === 'number' && hexadecimalIds.has(name) ? id.toString(16) : id}`;
}
