/** PT_LOAD segments of a made /proc/kcore. */
export interface MadeSegment {
  readonly virtual: bigint;
  /** -1n: not plain memory. */
  readonly physical: bigint;
  readonly content: Buffer;
}

const [HEADER_BYTES, SEGMENT_BYTES, PAGE] = [64, 56, 0x1000];

/** What a kernel says that encrypts nothing. */
export const UNENCRYPTED = 'NUMBER(sme_mask)=0\n';

/** /proc/kcore with VMCOREINFO and these segments, as fs/proc/kcore.c writes it. */
export function madeKcore(segments: readonly MadeSegment[], vmcoreinfo = UNENCRYPTED): Buffer {
  const note = Buffer.concat([Buffer.alloc(12), Buffer.from('VMCOREINFO\0\0'), Buffer.from(vmcoreinfo)]);
  note.writeUInt32LE('VMCOREINFO'.length + 1, 0);
  note.writeUInt32LE(vmcoreinfo.length, 4);
  const noteAt = HEADER_BYTES + (1 + segments.length) * SEGMENT_BYTES;
  const header = Buffer.alloc(Math.ceil((noteAt + note.length) / PAGE) * PAGE);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.writeUInt16LE(4, 16);
  header.writeUInt16LE(62, 18);
  header.writeBigUInt64LE(BigInt(HEADER_BYTES), 32);
  header.writeUInt16LE(HEADER_BYTES, 52);
  header.writeUInt16LE(SEGMENT_BYTES, 54);
  header.writeUInt16LE(1 + segments.length, 56);
  header.set(note, noteAt);
  header.writeUInt32LE(4, HEADER_BYTES);
  header.writeBigUInt64LE(BigInt(noteAt), HEADER_BYTES + 8);
  header.writeBigUInt64LE(BigInt(note.length), HEADER_BYTES + 32);
  let offset = header.length;
  segments.forEach(({ virtual, physical, content }, index) => {
    const at = HEADER_BYTES + (1 + index) * SEGMENT_BYTES;
    header.writeUInt32LE(1, at);
    header.writeBigUInt64LE(BigInt(offset), at + 8);
    header.writeBigUInt64LE(virtual, at + 16);
    header.writeBigUInt64LE(BigInt.asUintN(64, physical), at + 24);
    header.writeBigUInt64LE(BigInt(content.length), at + 32);
    header.writeBigUInt64LE(BigInt(content.length), at + 40);
    offset += content.length;
  });
  return Buffer.concat([header, ...segments.map(({ content }) => content)]);
}
