/** Numbers of the state components (SDM volume 1, chapter 13). */
export const XFEATURE = {
  fp: 0,
  sse: 1,
  ymm: 2,
  bndregs: 3,
  bndcsr: 4,
  opmask: 5,
  zmmHi256: 6,
  hi16Zmm: 7,
  pkru: 9,
  pasid: 10,
  cetUser: 11,
  xtileCfg: 17,
  xtileData: 18,
} as const;

/** Offsets in the 512 bytes of the FXSAVE region, and what a program starts with: SDM volume 1, 10.5.1. */
export const FXSAVE = {
  bytes: 512,
  fcw: 0,
  mxcsr: 24,
  mxcsrMask: 28,
  initialFcw: 0x37f,
  initialMxcsr: 0x1f80,
} as const;

/** The FXSAVE region of a program that starts. */
export function initialFxsave(mxcsrMask: number): Buffer {
  const fxsave = Buffer.alloc(FXSAVE.bytes);
  fxsave.writeUInt16LE(FXSAVE.initialFcw, FXSAVE.fcw);
  fxsave.writeUInt32LE(FXSAVE.initialMxcsr, FXSAVE.mxcsr);
  fxsave.writeUInt32LE(mxcsrMask, FXSAVE.mxcsrMask);
  return fxsave;
}
