import { libcFunction } from './libc.ts';

export const IPC_PRIVATE = 0;
/** Flags of shmget(2), semget(2) and msgget(2): make a new one, and none that is there. */
export const IPC_CREAT_EXCL = 0o3000;
/** Flag of semop(2) and msgsnd(2): fail rather than wait. */
export const IPC_NOWAIT = 0o4000;
export const SHM_NORESERVE = 0o10000;
/** Commands of shmctl(2), semctl(2) and msgctl(2). */
export const IPC_RMID = 0;
export const IPC_SET = 1;
export const IPC_STAT = 2;
export const SHM_LOCK = 11;
/** Commands of semctl(2). */
export const GETNCNT = 14;
export const GETVAL = 12;
export const GETZCNT = 15;
export const SETVAL = 16;
/** Flag of semop(2): undo it when the process ends. */
export const SEM_UNDO = 0o10000;
/** Bits of a segment's mode besides its permissions: it is removed, or locked. */
export const SHM_DEST = 0o1000;
export const SHM_LOCKED = 0o2000;

/** Offsets in `struct ipc64_perm` of 64-bit machines (asm-generic/ipcbuf.h), with which the others begin. */
const PERM = { key: 0, uid: 4, gid: 8, cuid: 12, cgid: 16, mode: 20 } as const;

/** Offsets in `struct shmid64_ds` of 64-bit machines (asm-generic/shmbuf.h), and its size. */
export const SHMID_DS = {
  ...PERM,
  sizeBytes: 48,
  attachments: 88,
  bytes: 112,
} as const;

/** Offsets in `struct semid64_ds` (arch/x86/include/uapi/asm/sembuf.h), and its size. */
export const SEMID_DS = { ...PERM, lastOperation: 48, semaphores: 80, bytes: 104 } as const;

/** Offsets in `struct msqid64_ds` of 64-bit machines (asm-generic/msgbuf.h), and its size. */
export const MSQID_DS = { ...PERM, messages: 80, limitBytes: 88, bytes: 120 } as const;

/** `struct sembuf` of semop(2). */
export interface SemaphoreOperation {
  readonly semaphore: number;
  readonly change: number;
  readonly flags: number;
}

const SEMBUF_BYTES = 6;

/** An array of `struct sembuf`. */
export function sembufs(operations: readonly SemaphoreOperation[]): Buffer {
  const bytes = Buffer.alloc(SEMBUF_BYTES * operations.length);
  for (const [i, { semaphore, change, flags }] of operations.entries()) {
    bytes.writeUInt16LE(semaphore, SEMBUF_BYTES * i);
    bytes.writeInt16LE(change, SEMBUF_BYTES * i + 2);
    bytes.writeInt16LE(flags, SEMBUF_BYTES * i + 4);
  }
  return bytes;
}

/** semget(2). */
export const semget = libcFunction<[key: number, count: number, flags: number]>(
  'int semget(int key, int count, int flags)',
);

/** semctl(2) with a number, or with a `struct semid64_ds` for IPC_SET and IPC_STAT. */
export const semctl = libcFunction<[id: number, semaphore: number, command: number, value: number]>(
  'int semctl(int id, int semaphore, int command, long value)',
);
export const semctlOn = libcFunction<[id: number, semaphore: number, command: number, ds: Uint8Array]>(
  'int semctl(int id, int semaphore, int command, void *ds)',
);

/** semop(2). */
export const semop = libcFunction<[id: number, operations: Uint8Array, count: number]>(
  'int semop(int id, void *operations, size_t count)',
);

/** msgget(2). */
export const msgget = libcFunction<[key: number, flags: number]>('int msgget(int key, int flags)');

/** msgctl(2); `ds` is a `struct msqid64_ds` for IPC_SET and IPC_STAT. */
export const msgctl = libcFunction<[id: number, command: number, ds: Uint8Array | null]>(
  'int msgctl(int id, int command, void *ds)',
);

/** msgsnd(2); `message` is its type, eight bytes, and its text. */
export const msgsnd = libcFunction<[id: number, message: Uint8Array, bytes: number, flags: number]>(
  'int msgsnd(int id, void *message, size_t bytes, int flags)',
);

/** msgrcv(2); `message` gets its type, eight bytes, and its text. */
export const msgrcv = libcFunction<
  [id: number, message: Uint8Array, bytes: number, type: number, flags: number]
>('long msgrcv(int id, void *message, size_t bytes, long type, int flags)');

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
