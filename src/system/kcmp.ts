import { libcFunction } from './libc.ts';

const SYS_kcmp = 312;
/** include/uapi/linux/kcmp.h */
const KCMP_VM = 1;

const kcmp = libcFunction<
  [call: number, one: number, other: number, type: number, index1: number, index2: number]
>('long syscall(long call, int pid1, int pid2, int type, unsigned long idx1, unsigned long idx2)');

/**
 * How two processes' address spaces stand in an order that holds until the next boot (kcmp(2)).
 * @returns 0 if they are one and the same, -1 or 1 if they are not; undefined if that cannot be told: one of
 * the processes has ended, or this kernel has no kcmp
 */
export function compareAddressSpaces(pid: number, other: number): number | undefined {
  switch (kcmp(SYS_kcmp, pid, other, KCMP_VM, 0, 0)) {
    case 0:
      return 0;
    case 1:
      return -1;
    case 2:
      return 1;
    default:
      return undefined;
  }
}
