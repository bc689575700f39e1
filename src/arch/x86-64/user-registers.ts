/**
 * General registers of a thread in user mode, in the order and under the names of `struct user_regs_struct`.
 */
export interface UserRegisters {
  readonly r15: bigint;
  readonly r14: bigint;
  readonly r13: bigint;
  readonly r12: bigint;
  readonly bp: bigint;
  readonly bx: bigint;
  readonly r11: bigint;
  readonly r10: bigint;
  readonly r9: bigint;
  readonly r8: bigint;
  readonly ax: bigint;
  readonly cx: bigint;
  readonly dx: bigint;
  readonly si: bigint;
  readonly di: bigint;
  readonly origAx: bigint;
  readonly ip: bigint;
  readonly cs: bigint;
  readonly flags: bigint;
  readonly sp: bigint;
  readonly ss: bigint;
  readonly fsBase: bigint;
  readonly gsBase: bigint;
  readonly ds: bigint;
  readonly es: bigint;
  readonly fs: bigint;
  readonly gs: bigint;
}

/** Those without segments and their bases: what the kernel puts down when a thread enters it. */
export type GeneralRegisters = Omit<UserRegisters, 'fsBase' | 'gsBase' | 'ds' | 'es' | 'fs' | 'gs'>;

/**
 * One component of the extended state, as it lies in memory. Numbers as in the SDM: 2 AVX, 5 to 7 AVX-512, 9
 * PKRU.
 */
export interface XstateComponent {
  readonly number: number;
  readonly data: Uint8Array;
}

/** Floating-point and vector state of a thread. */
export interface FpuState {
  /** The 512 bytes of the legacy FXSAVE region. */
  readonly fxsave: Uint8Array;
  /** XSTATE_BV, or undefined on a machine without XSAVE. */
  readonly xstateBv: bigint | undefined;
  /** Components above the legacy region that are in use (not in their initial configuration). */
  readonly components: readonly XstateComponent[];
}

/** Slot of set_thread_area (struct user_desc); 64-bit programs leave the three slots empty. */
export interface TlsSlot {
  readonly entryNumber: number;
  readonly low: number;
  readonly high: number;
}
