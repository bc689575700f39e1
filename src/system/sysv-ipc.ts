import { libcFunction } from './libc.ts';

export const IPC_PRIVATE = 0;
/** Flags of shmget(2): make a new one, and none that is there. */
export const IPC_CREAT_EXCL = 0o3000;
export const SHM_NORESERVE = 0o10000;
/** Commands of shmctl(2). */
export const IPC_RMID = 0;
export const IPC_SET = 1;
export const IPC_STAT = 2;
export const SHM_LOCK = 11;
/** Bits of a segment's mode besides its permissions: it is removed, or locked. */
export const SHM_DEST = 0o1000;
export const SHM_LOCKED = 0o2000;

/** Offsets in `struct shmid64_ds` of 64-bit machines (asm-generic/shmbuf.h and ipcbuf.h), and its size. */
export const SHMID_DS = {
  key: 0,
  uid: 4,
  gid: 8,
  cuid: 12,
  cgid: 16,
  mode: 20,
  sizeBytes: 48,
  attachments: 88,
  bytes: 112,
} as const;

/** shmget(2). */
export const shmget = libcFunction<[key: number, size: number, flags: number]>(
  'int shmget(int key, unsigned long size, int flags)',
);

/** shmctl(2); `ds` is a `struct shmid64_ds` for IPC_SET and IPC_STAT. */
export const shmctl = libcFunction<[id: number, command: number, ds: Uint8Array | null]>(
  'int shmctl(int id, int command, void *ds)',
);

/** shmat(2), at an address of the kernel's choice if `address` is 0; returns the address. */
export const shmat = libcFunction<[id: number, address: number, flags: number]>(
  'long shmat(int id, unsigned long address, int flags)',
);

/** shmdt(2). */
export const shmdt = libcFunction<[address: number]>('int shmdt(unsigned long address)');

/** pread(2) into memory that JavaScript does not see. */
export const preadTo = libcFunction<[fd: number, address: number, count: number, offset: number]>(
  'long pread(int fd, unsigned long address, unsigned long count, long offset)',
);
