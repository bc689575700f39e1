import { createRequire } from 'node:module';
import { constants } from 'node:os';
import type { LibraryHandle } from 'koffi';
import { SystemCallError } from './errno.ts';

/** The members of a structure of C, by name, with their types in koffi's notation. */
type Members = Readonly<Record<string, string>>;

interface Loaded {
  readonly koffi: typeof import('koffi');
  readonly library: LibraryHandle;
}

let loaded: Loaded | undefined;

/**
 * Loaded when something is called for the first time: most commands call nothing, and koffi's native module
 * takes a while.
 */
function libc(): Loaded {
  if (loaded !== undefined) return loaded;
  const koffi: typeof import('koffi') = createRequire(import.meta.url)('koffi');
  loaded = { koffi, library: koffi.load('libc.so.6') };
  return loaded;
}

/**
 * A function of libc of the kind that returns a number below zero when it has failed, and tells by errno why.
 * @param declaration in C; the type arguments are its arguments
 * @param structures that the declaration names
 * @returns the function. As from the kernel itself, a result below zero is an errno with its sign changed
 */
export function libcFunction<Arguments extends readonly unknown[]>(
  declaration: string,
  structures: Readonly<Record<string, Members>> = {},
): (...values: Arguments) => number {
  let call: ((...values: Arguments) => unknown) | undefined;
  return (...values) => {
    const { koffi, library } = libc();
    if (call === undefined) {
      for (const [name, members] of Object.entries(structures)) koffi.struct(name, members);
      call = library.func(declaration);
    }
    const result = Number(call(...values));
    // A failure without an errno is one all the same.
    return result < 0 ? -(koffi.errno() || constants.errno.EIO) : result;
  };
}

/**
 * The result of a function of libc that has to succeed.
 * @param call the function's name
 * @throws SystemCallError if the result is an errno
 */
export function checked(call: string, result: number): number {
  if (result < 0) throw new SystemCallError(call, -result);
  return result;
}

/**
 * Memory of this process that V8 does not manage. Nothing keeps it from being unmapped while it is looked at.
 */
export function memoryAt(address: number, length: number): ArrayBuffer {
  return libc().koffi.view(BigInt(address), length);
}
