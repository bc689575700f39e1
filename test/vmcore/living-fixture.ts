import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { ELF_HEADER_BYTES, PT_LOAD, parseNotes, parseProgramHeaders } from '../../src/system/elf.ts';
import { madeKcore } from '../arm/made-kcore.ts';
import { dumpBytes, type Release, scratch } from './fixtures.ts';

/** Where the made file says that the direct map is: nothing reads it from there. */
const DIRECT_MAP = 0xffff_8880_0000_0000n;

/** A file like /proc/kcore with the kernel of a fixture, whose memory can be changed as it is looked at. */
export interface LivingFixture {
  readonly path: string;
  /** Puts other bytes at a physical address. */
  change(physical: number, bytes: Uint8Array): void;
}

let files = 0;

export function livingFixture(release: Release): LivingFixture {
  const dump = dumpBytes(release);
  const headers = parseProgramHeaders(
    dump.subarray(ELF_HEADER_BYTES, ELF_HEADER_BYTES + dump.readUInt16LE(56) * 56),
  );
  const [{ offset = 0, fileBytes = 0 } = {}] = headers;
  const info = parseNotes(dump.subarray(offset, offset + fileBytes)).find(
    ({ name }) => name === 'VMCOREINFO',
  );
  const loads = headers.filter(({ type }) => type === PT_LOAD);
  const path = scratch(`kcore-${files++}`);
  const segments = loads.map((load) => ({
    virtual: DIRECT_MAP + BigInt(load.physical),
    physical: BigInt(load.physical),
    content: dump.subarray(load.offset, load.offset + load.fileBytes),
  }));
  const content = madeKcore(segments, info?.description.toString('latin1').replace(/\0.*$/s, ''));
  writeFileSync(path, content);
  const placed = parseProgramHeaders(
    content.subarray(ELF_HEADER_BYTES, ELF_HEADER_BYTES + headers.length * 56),
  );
  return {
    path,
    change: (physical, bytes) => {
      const load = placed.find(
        (one) => one.type === PT_LOAD && physical >= one.physical && physical < one.physical + one.fileBytes,
      );
      if (load === undefined) throw new Error(`the fixture does not hold ${physical.toString(16)}`);
      const fd = openSync(path, 'r+');
      writeSync(fd, bytes, 0, bytes.length, load.offset + (physical - load.physical));
      closeSync(fd);
    },
  };
}
