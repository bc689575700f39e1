import type { MessageInitShape } from '@bufbuild/protobuf';
import { XFEATURE } from '../../arch/x86-64/xstate.ts';
import type { FpuState, Thread, TlsSlot, UserRegisters } from '../../model/process.ts';
import {
  type ThreadInfoX86Schema,
  type UserDescTSchema,
  type UserX86FpregsEntrySchema,
  type UserX86RegsEntrySchema,
  UserX86RegsMode,
} from './proto/gen/core_x86_pb.ts';

function regsEntry(registers: UserRegisters): MessageInitShape<typeof UserX86RegsEntrySchema> {
  return { ...registers, mode: UserX86RegsMode.NATIVE };
}

function words(data: Uint8Array): number[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  return Array.from({ length: data.byteLength / 4 }, (_, i) => view.getUint32(i * 4, true));
}

function doubleWords(data: Uint8Array): bigint[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  return Array.from({ length: data.byteLength / 8 }, (_, i) => view.getBigUint64(i * 8, true));
}

/** Layout of the FXSAVE region: SDM volume 1, 10.5.1. */
function fpregsEntry({
  fxsave,
  xstateBv,
  components,
}: FpuState): MessageInitShape<typeof UserX86FpregsEntrySchema> {
  const view = new DataView(fxsave.buffer, fxsave.byteOffset, fxsave.byteLength);
  const component = (number: number): Uint8Array =>
    components.find((candidate) => candidate.number === number)?.data ?? new Uint8Array();
  return {
    cwd: view.getUint16(0, true),
    swd: view.getUint16(2, true),
    twd: view.getUint16(4, true),
    fop: view.getUint16(6, true),
    rip: view.getBigUint64(8, true),
    rdp: view.getBigUint64(16, true),
    mxcsr: view.getUint32(24, true),
    mxcsrMask: view.getUint32(28, true),
    stSpace: words(fxsave.subarray(32, 160)),
    xmmSpace: words(fxsave.subarray(160, 416)),
    xsave:
      xstateBv === undefined
        ? undefined
        : {
            xstateBv,
            ymmhSpace: words(component(XFEATURE.ymm)),
            bndregState: doubleWords(component(XFEATURE.bndregs)),
            bndcsrState: doubleWords(component(XFEATURE.bndcsr)),
            opmaskReg: doubleWords(component(XFEATURE.opmask)),
            zmmUpper: doubleWords(component(XFEATURE.zmmHi256)),
            hi16Zmm: doubleWords(component(XFEATURE.hi16Zmm)),
            pkru: words(component(XFEATURE.pkru)),
          },
  };
}

/**
 * struct user_desc from the eight bytes of a segment descriptor: fill_user_desc() in arch/x86/kernel/tls.c.
 */
function tlsEntry({ entryNumber, low, high }: TlsSlot): MessageInitShape<typeof UserDescTSchema> {
  const bit = (n: number) => ((high >>> n) & 1) === 1;
  return {
    entryNumber,
    baseAddr: ((low >>> 16) | ((high & 0xff) << 16) | (high & 0xff000000)) >>> 0,
    limit: (low & 0xffff) | (high & 0xf0000),
    seg32bit: bit(22),
    contentsH: bit(11),
    contentsL: bit(10),
    readExecOnly: !bit(9),
    limitInPages: bit(23),
    segNotPresent: !bit(15),
    usable: bit(20),
  };
}

/** The architecture's part of a thread's core image. */
export function x86ThreadInfo(thread: Thread): MessageInitShape<typeof ThreadInfoX86Schema> {
  return {
    clearTidAddr: thread.clearChildTid,
    gpregs: regsEntry(thread.registers),
    fpregs: fpregsEntry(thread.fpu),
    tls: thread.tls.map(tlsEntry),
  };
}
