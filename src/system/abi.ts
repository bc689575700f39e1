// Numbers of the ABI that several parts compare with what a kernel's structures have. Nothing is loaded here.

/** Bytes of a name, and of a path with the zero byte behind it (include/uapi/linux/limits.h). */
export const NAME_MAX = 255;
export const PATH_MAX = 4096;

/** Types of sockets (include/linux/net.h). */
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;

/** What memory may be used for (include/uapi/asm-generic/mman-common.h). */
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;

/** Bytes of `siginfo_t` (SI_MAX_SIZE of include/uapi/asm-generic/siginfo.h). */
export const SIGINFO_BYTES = 128;

/** A flag of an open file (include/uapi/asm-generic/fcntl.h). */
export const O_NONBLOCK = 0o4000;

/** include/uapi/linux/mman.h */
export const MAP_SHARED = 1;

/** include/uapi/linux/in.h */
export const IPPROTO_TCP = 6;

/** What node's constants do not have of include/uapi/asm-generic/fcntl.h; it belongs to the descriptor. */
export const O_CLOEXEC = 0o2000000;

/** Of times that are told in ticks: USER_HZ is 100 on x86-64 (include/asm-generic/param.h). */
export const NANOSECONDS_PER_TICK = 10_000_000n;
