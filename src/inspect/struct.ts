import { PAGE_SIZE } from '../system/page.ts';
import { BTF_KIND, type Btf } from '../vmcore/btf.ts';
import { BtfFormat, type MemberDescription } from '../vmcore/btf-format.ts';
import { hex, readable, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { Inspection } from './inspection.ts';
import { formatValue, ValueReader } from './values.ts';

/** Where the comments with offset and size start, as in pahole(1). */
const COMMENT_COLUMN = 56;
const CACHE_LINE = 64;

function memberLines(member: MemberDescription, isUnion: boolean, btf: Btf, indent: string): string[] {
  const offset = `${String(member.bits >>> 3).padStart(5)}${bitSuffix(member)} ${String(member.sizeBytes).padStart(5)}`;
  const comment = `/* ${isUnion && member.members === undefined ? String(member.sizeBytes).padStart(11) : offset} */`;
  if (member.members === undefined) {
    const width = member.bitFieldWidth === 0 ? '' : `:${member.bitFieldWidth}`;
    return [`${`${indent}\t${member.declaration}${width};`.padEnd(COMMENT_COLUMN)} ${comment}`];
  }
  const inUnion = btf.kind(btf.strip(member.typeId)) === BTF_KIND.UNION;
  return [
    `${indent}\t${inUnion ? 'union' : 'struct'} {`,
    ...bodyLines(member.members, inUnion, btf, `${indent}\t`, (member.bits >>> 3) + member.sizeBytes),
    `${`${indent}\t}${member.name === '' ? '' : ` ${member.name}`};`.padEnd(COMMENT_COLUMN)} /* ${offset} */`,
  ];
}

function bitSuffix(member: MemberDescription): string {
  return member.bitFieldWidth === 0 ? '' : `:${member.bits & 7}`;
}

/** Members with the holes between them; `end` is where the structure ends, in bytes. */
function bodyLines(
  members: readonly MemberDescription[],
  isUnion: boolean,
  btf: Btf,
  indent: string,
  end: number,
): string[] {
  const lines: string[] = [];
  members.forEach((member, i) => {
    lines.push(...memberLines(member, isUnion, btf, indent));
    const next = members[i + 1];
    if (isUnion || next === undefined || member.bitFieldWidth !== 0) return;
    const hole = (next.bits >>> 3) - ((member.bits >>> 3) + member.sizeBytes);
    if (hole > 0) lines.push('', `${indent}\t/* XXX ${hole} bytes hole, try to pack */`, '');
  });
  const last = members.at(-1);
  const padding =
    last === undefined || last.bitFieldWidth !== 0 ? 0 : end - ((last.bits >>> 3) + last.sizeBytes);
  if (!isUnion && padding > 0 && indent === '') lines.push('', `${indent}\t/* padding: ${padding} */`);
  return lines;
}

function jsonMember(member: MemberDescription): unknown {
  return {
    name: member.name,
    type: member.type,
    offset: member.bits >>> 3,
    size: member.sizeBytes,
    ...(member.bitFieldWidth === 0 ? {} : { bitOffset: member.bits & 7, bitSize: member.bitFieldWidth }),
    ...(member.members === undefined ? {} : { members: member.members.map(jsonMember) }),
  };
}

function layoutText(btf: Btf, id: number, name: string): string {
  const members = new BtfFormat(btf).members(id);
  const size = btf.sizeOf(id);
  const isUnion = btf.kind(id) === BTF_KIND.UNION;
  return [
    `${isUnion ? 'union' : 'struct'} ${name} {`,
    ...bodyLines(members, isUnion, btf, '', size),
    '',
    `\t/* size: ${size}, cachelines: ${Math.ceil(size / CACHE_LINE)}, members: ${members.length} */`,
    '};',
  ].join('\n');
}

/** An address as people give it: `0xffff888003a4c000`, without `0x`, or a symbol's name. */
function parseAddress(kernel: Kernel, text: string): bigint {
  if (/^0x[0-9a-f]{1,16}$/i.test(text)) return BigInt(text);
  if (/^[0-9a-f]{16}$/i.test(text)) return BigInt(`0x${text}`);
  const symbol = kernel.symbolMaybe(text);
  if (symbol === undefined)
    throw new VmcoreError(`"${text}" is neither an address such as 0xffff888003a4c000 nor a symbol`);
  return symbol;
}

const PAGE = BigInt(PAGE_SIZE);

/** Whether the dump has any page of a structure. */
function hasBytes(kernel: Kernel, address: bigint, sizeBytes: number): boolean {
  for (let at = address; at < address + BigInt(sizeBytes); at += PAGE - (at % PAGE)) {
    if (readable(() => kernel.memory.u8(at)) !== undefined) return true;
  }
  return false;
}

const MAX_SIMILAR = 5;

/** Names of structures that somebody may have meant who gave one that does not exist. */
function similar(btf: Btf, name: string): string {
  const wanted = name.toLowerCase();
  const found = new Set<string>();
  for (let id = 1; id < btf.typeCount && found.size < MAX_SIMILAR; id++) {
    const kind = btf.kind(id);
    if (kind !== BTF_KIND.STRUCT && kind !== BTF_KIND.UNION) continue;
    const known = btf.name(id);
    if (known.toLowerCase().includes(wanted)) found.add(known);
  }
  return found.size === 0 ? '' : `; there is ${[...found].join(', ')}`;
}

/**
 * The layout of a structure as pahole(1) shows it, or, with an address, its values. Throws a VmcoreError if
 * there is none.
 */
export function structInspection(kernel: Kernel, name: string, address?: string): Inspection {
  const { btf } = kernel.layouts;
  const id = kernel.layouts.structId(name);
  if (id === undefined || ![BTF_KIND.STRUCT, BTF_KIND.UNION].some((kind) => kind === btf.kind(id))) {
    throw new VmcoreError(`kernel ${kernel.release} has no struct or union ${name}${similar(btf, name)}`);
  }
  if (address === undefined) {
    const members = (): unknown[] => new BtfFormat(btf).members(id).map(jsonMember);
    return {
      json: () => ({ name, size: btf.sizeOf(id), members: members() }),
      text: () => layoutText(btf, id, name),
    };
  }
  const at = parseAddress(kernel, address);
  if (!hasBytes(kernel, at, btf.sizeOf(id))) kernel.memory.window(at, 1);
  const reader = new ValueReader(kernel, btf);
  const value = reader.read(id, at);
  return {
    problems: reader.problems,
    json: () => ({ name, address: hex(at), value }),
    text: () => `(struct ${name} at ${hex(at)}) ${formatValue(value)}`,
  };
}
