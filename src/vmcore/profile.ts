import { readFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { replaceFile } from '../system/state-file.ts';
import { ProfileError } from './errors.ts';
import { openProblem } from './mapping.ts';
import { ProfileSymbols } from './profile-symbols.ts';
import type { SymbolTable } from './symbols.ts';

/**
 * What is known of a kernel without its dump: taken while the system is healthy, and kept where a dying
 * kernel cannot reach it. Symbols' addresses are those of one boot (KASLR).
 */
export interface Profile {
  /** `uname -r`. */
  readonly release: string;
  /** GNU build id of the kernel image, hexadecimal: must be the dump's. */
  readonly buildId: string;
  /** VMCOREINFO's text, for a dump that has none; empty if it could not be read. */
  readonly vmcoreinfo: string;
  /** The content of /sys/kernel/btf/vmlinux. */
  readonly btf: Uint8Array;
  readonly symbols: SymbolTable;
}

/** A profile whose symbols can be written to a file. */
export interface TakenProfile extends Profile {
  readonly symbols: ProfileSymbols;
}

const MAGIC = 'OTHRWRLD';
const VERSION = 1;
/** magic, version, CRC-32 of the rest, then six lengths. */
const HEADER_BYTES = 8 + 4 + 4 + 6 * 4;

/** Sections in the order of the file; those of 32-bit words come first, so that they are aligned. */
function sections(profile: TakenProfile): Uint8Array[] {
  const { starts, addresses, slots, names } = profile.symbols;
  const words = [starts, addresses, slots].map(
    (part) => new Uint8Array(part.buffer, part.byteOffset, part.byteLength),
  );
  const texts = [profile.release, profile.buildId, profile.vmcoreinfo].map((text) =>
    Buffer.from(text, 'latin1'),
  );
  return [
    ...words,
    names,
    profile.btf,
    Buffer.from(JSON.stringify(texts.map((text) => text.toString('latin1')))),
  ];
}

/** The profile as one file's content. */
export function encodeProfile(profile: TakenProfile): Buffer {
  const parts = sections(profile);
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(MAGIC, 'latin1');
  header.writeUInt32LE(VERSION, 8);
  parts.forEach((part, i) => {
    header.writeUInt32LE(part.length, 16 + i * 4);
  });
  const content = Buffer.concat([header.subarray(16), ...parts]);
  header.writeUInt32LE(crc32(content), 12);
  return Buffer.concat([header.subarray(0, 16), content]);
}

/** Reads what {@link encodeProfile} wrote; throws a ProfileError if it is damaged or of another version. */
export function decodeProfile(content: Uint8Array, path = 'the profile'): Profile {
  const raw = Buffer.from(content.buffer, content.byteOffset, content.length);
  if (raw.length < HEADER_BYTES || raw.toString('latin1', 0, 8) !== MAGIC)
    throw new ProfileError(`${path} is no profile`);
  const version = raw.readUInt32LE(8);
  if (version !== VERSION)
    throw new ProfileError(`${path} is of version ${version}, not ${VERSION}: run \`otherworld arm\` again`);
  if (crc32(raw.subarray(16)) !== raw.readUInt32LE(12))
    throw new ProfileError(`${path} is damaged: its checksum is wrong`);
  let at = HEADER_BYTES;
  const take = (index: number): Buffer => {
    const length = raw.readUInt32LE(16 + index * 4);
    if (at + length > raw.length) throw new ProfileError(`${path} is damaged: section ${index} is cut off`);
    at += length;
    return raw.subarray(at - length, at);
  };
  const words = (index: number): ArrayBuffer => Uint8Array.from(take(index)).buffer;
  const symbolsParts = [
    new Uint32Array(words(0)),
    new Uint32Array(words(1)),
    new Int32Array(words(2)),
  ] as const;
  const names = take(3);
  const btf = take(4);
  const texts: unknown = JSON.parse(take(5).toString());
  if (!Array.isArray(texts) || !texts.every((text) => typeof text === 'string'))
    throw new ProfileError(`${path} is damaged`);
  const [release = '', buildId = '', vmcoreinfo = ''] = texts;
  return { release, buildId, vmcoreinfo, btf, symbols: new ProfileSymbols(names, ...symbolsParts) };
}

/** Writes a profile, whole or not at all. */
export function writeProfile(path: string, profile: TakenProfile): void {
  replaceFile(path, encodeProfile(profile));
}

/** Reads a profile from a file; throws a ProfileError if it cannot be read or is damaged. */
export function readProfile(path: string): Profile {
  let content: Buffer;
  try {
    content = readFileSync(path);
  } catch (error) {
    throw new ProfileError(`the profile ${path} cannot be opened: ${openProblem(error)}`);
  }
  return decodeProfile(content, path);
}
