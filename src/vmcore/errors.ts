/** Formats an address the way the kernel's own messages do: `0xffff888003a4c000`. */
export function hex(address: bigint | number): string {
  return `0x${address.toString(16)}`;
}

/** Anything that went wrong while a vmcore was read. Every error of `src/vmcore` and `src/linux` is one. */
export class VmcoreError extends Error {
  override readonly name: string = 'VmcoreError';
}

/** The file is no vmcore, is damaged, or is of a kind that is not read. `file` is its path. */
export class FormatError extends VmcoreError {
  override readonly name = 'FormatError';
  readonly file: string;

  constructor(file: string, problem: string) {
    super(`${file}: ${problem}`);
    this.file = file;
  }
}

/**
 * A virtual or physical address that the dump does not hold. `reading` names the structure member, if any.
 */
export class AddressError extends VmcoreError {
  override readonly name = 'AddressError';
  readonly address: bigint;
  readonly problem: string;
  readonly reading: string | undefined;

  constructor(address: bigint | number, problem: string, reading?: string) {
    super(`${reading === undefined ? '' : `reading ${reading}: `}address ${hex(address)} ${problem}`);
    this.address = BigInt(address);
    this.problem = problem;
    this.reading = reading;
  }
}

/** A structure declaration does not fit the kernel in the dump: member missing, other size or other kind. */
export class BindError extends VmcoreError {
  override readonly name = 'BindError';
  readonly structure: string;
  readonly member: string | undefined;
  readonly release: string;

  constructor(structure: string, member: string | undefined, release: string, problem: string) {
    super(`struct ${structure}${member === undefined ? '' : `.${member}`} of kernel ${release} ${problem}`);
    this.structure = structure;
    this.member = member;
    this.release = release;
  }
}

/** A symbol or an enumerator that the kernel in the dump does not have. */
export class SymbolError extends VmcoreError {
  override readonly name = 'SymbolError';
  readonly symbol: string;

  constructor(symbol: string, release: string, kind: 'symbol' | 'enumerator' = 'symbol') {
    super(`kernel ${release} has no ${kind} ${symbol}`);
    this.symbol = symbol;
  }
}

/** A list, tree or table of the dead kernel is damaged: it does not end, or points to what it cannot hold. */
export class ContainerError extends VmcoreError {
  override readonly name: string = 'ContainerError';
  readonly container: string;
  readonly address: bigint;
  readonly problem: string;

  constructor(container: string, address: bigint, problem: string) {
    super(`${container} at ${hex(address)} ${problem}`);
    this.container = container;
    this.address = address;
    this.problem = problem;
  }
}

/**
 * Of a living kernel: something did not agree with itself however often it was read, and in another way each
 * time. It is being changed, which says nothing against it.
 */
export class ChangingError extends ContainerError {
  override readonly name = 'ChangingError';

  /** @param last what its last try found wrong */
  constructor(last: AddressError | ContainerError) {
    const container = last instanceof ContainerError ? last.container : 'memory';
    super(
      container,
      last.address,
      `changes while it is read: it ${last.problem.replace(/^is damaged: /, 'is such that ')}`,
    );
  }
}

/** The profile cannot be used: damaged, of another version, or taken from another kernel than the dump's. */
export class ProfileError extends VmcoreError {
  override readonly name = 'ProfileError';
}

/**
 * Whether an error is about one damaged structure, so that others may still be read; not about the kernel or
 * the file.
 */
export function isDamage(error: unknown): error is AddressError | ContainerError {
  return error instanceof AddressError || error instanceof ContainerError;
}

/**
 * What `read` returns, or undefined where that cannot be read (any VmcoreError): for callers to whom the
 * reason does not matter.
 */
export function readable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return undefined;
  }
}
