import { libcFunction } from './libc.ts';

/** Requests and options of ptrace(2). */
export const PTRACE_CONT = 7;
export const PTRACE_GETREGS = 12;
export const PTRACE_SETREGS = 13;
export const PTRACE_DETACH = 17;
export const PTRACE_SYSCALL = 24;
export const PTRACE_SEIZE = 0x4206;
export const PTRACE_INTERRUPT = 0x4207;
export const PTRACE_PEEKSIGINFO = 0x4209;
export const PTRACE_GETSIGMASK = 0x420a;
export const PTRACE_SETSIGMASK = 0x420b;
export const PTRACE_O_TRACESYSGOOD = 1;
/** Who is traced is killed when its tracer ends, until it is let go. */
export const PTRACE_O_EXITKILL = 1 << 20;
/** Of root alone, with CONFIG_CHECKPOINT_RESTORE. */
export const PTRACE_O_SUSPEND_SECCOMP = 1 << 21;
export const PTRACE_PEEKSIGINFO_SHARED = 1;

/** Options of {@link waitpid} (waitpid(2)). */
export const WNOHANG = 1;
export const __WALL = 0x4000_0000;

/** ptrace(2), of the requests that read or fill memory of ours. */
export const ptrace = libcFunction<[request: number, pid: number, address: number, data: Uint8Array]>(
  'long ptrace(long request, int pid, unsigned long address, void *data)',
);

/** ptrace(2), of the requests that take a number. */
export const ptraceNumber = libcFunction<[request: number, pid: number, address: number, data: number]>(
  'long ptrace(long request, int pid, unsigned long address, unsigned long data)',
);

/** ptrace(2), of the request whose two arguments are memory of ours: PTRACE_PEEKSIGINFO. */
export const ptracePeek = libcFunction<[request: number, pid: number, what: Uint8Array, data: Uint8Array]>(
  'long ptrace(long request, int pid, void *what, void *data)',
);

/** waitpid(2): `status` has 4 bytes. */
export const waitpid = libcFunction<[pid: number, status: Uint8Array, options: number]>(
  'int waitpid(int pid, void *status, int options)',
);
