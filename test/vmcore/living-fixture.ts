import { closeSync, copyFileSync, openSync, writeFileSync, writeSync } from 'node:fs';
import {
  ELF_HEADER_BYTES,
  type ProgramHeader,
  PT_LOAD,
  parseNotes,
  parseProgramHeaders,
} from '../../src/system/elf.ts';
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

/** What each copy of a fixture begins as. */
interface Template {
  readonly path: string;
  /** The parts of memory and where they are in the file. */
  readonly loads: readonly ProgramHeader[];
}

const templates = new Map<Release, Template>();

function templateOf(release: Release): Template {
  const known = templates.get(release);
  if (known !== undefined) return known;
  const dump = dumpBytes(release);
  const headers = parseProgramHeaders(
    dump.subarray(ELF_HEADER_BYTES, ELF_HEADER_BYTES + dump.readUInt16LE(56) * 56),
  );
  const [{ offset = 0, fileBytes = 0 } = {}] = headers;
  const info = parseNotes(dump.subarray(offset, offset + fileBytes)).find(
    ({ name }) => name === 'VMCOREINFO',
  );
  const segments = headers
    .filter(({ type }) => type === PT_LOAD)
    .map((load) => ({
      virtual: DIRECT_MAP + BigInt(load.physical),
      physical: BigInt(load.physical),
      content: dump.subarray(load.offset, load.offset + load.fileBytes),
    }));
  const content = madeKcore(segments, info?.description.toString('latin1').replace(/\0.*$/s, ''));
  const path = scratch(`kcore-${release}`);
  writeFileSync(path, content);
  const placed = parseProgramHeaders(
    content.subarray(ELF_HEADER_BYTES, ELF_HEADER_BYTES + headers.length * 56),
  );
  const template = { path, loads: placed.filter(({ type }) => type === PT_LOAD) };
  templates.set(release, template);
  return template;
}

let files = 0;

export function livingFixture(release: Release): LivingFixture {
  const template = templateOf(release);
  const path = scratch(`kcore-${files++}`);
  copyFileSync(template.path, path);
  return {
    path,
    change: (physical, bytes) => {
      const load = template.loads.find(
        (one) => physical >= one.physical && physical < one.physical + one.fileBytes,
      );
      if (load === undefined) throw new Error(`the fixture does not hold ${physical.toString(16)}`);
      const fd = openSync(path, 'r+');
      writeSync(fd, bytes, 0, bytes.length, load.offset + (physical - load.physical));
      closeSync(fd);
    },
  };
}
