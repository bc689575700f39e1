import { BTF_KIND, type Btf } from './btf.ts';
import { VmcoreError } from './errors.ts';

const MAX_DEPTH = 32;
/** More members than any structure has, nested ones included: a damaged or malicious BTF. */
const MAX_MEMBERS = 50_000;

/** A member of a structure, in the order of its declaration. */
export interface MemberDescription {
  /** Empty for an anonymous structure or union. */
  readonly name: string;
  /** C type; `struct {...}` for an anonymous one. */
  readonly type: string;
  /** C declaration with the name in it: `int (*open)(struct inode *, struct file *)`. */
  readonly declaration: string;
  readonly typeId: number;
  /** From the start of the outermost structure, in bits. */
  readonly bits: number;
  readonly sizeBytes: number;
  /** 0 unless a bit field. */
  readonly bitFieldWidth: number;
  /** Members of a structure or union without a name of its own. */
  readonly members: readonly MemberDescription[] | undefined;
}

function join(type: string, name: string): string {
  if (name === '') return type;
  return type.endsWith('*') || name.startsWith('[') ? `${type}${name}` : `${type} ${name}`;
}

const KEYWORD = new Map<number, string>([
  [BTF_KIND.STRUCT, 'struct'],
  [BTF_KIND.UNION, 'union'],
  [BTF_KIND.ENUM, 'enum'],
  [BTF_KIND.ENUM64, 'enum'],
  [BTF_KIND.FWD, 'struct'],
]);
const QUALIFIER = new Map<number, string>([
  [BTF_KIND.CONST, 'const'],
  [BTF_KIND.VOLATILE, 'volatile'],
  [BTF_KIND.RESTRICT, 'restrict'],
]);

/** Turns BTF types into C declarations. */
export class BtfFormat {
  readonly #btf: Btf;
  #budget = MAX_MEMBERS;

  constructor(btf: Btf) {
    this.#btf = btf;
  }

  /** A declaration of `name` with a type: `char comm[16]`; only the type if the name is empty. */
  declare(typeId: number, name: string, depth = 0): string {
    if (depth > MAX_DEPTH || this.#budget-- <= 0)
      throw new VmcoreError('BTF is damaged: a type contains itself');
    const btf = this.#btf;
    const kind = btf.kind(typeId);
    const qualifier = QUALIFIER.get(kind);
    if (qualifier !== undefined) {
      const target = btf.target(typeId);
      if (btf.kind(target) === BTF_KIND.PTR) return this.declare(target, join(qualifier, name), depth + 1);
      return `${qualifier} ${this.declare(target, name, depth + 1)}`;
    }
    switch (kind) {
      case BTF_KIND.TYPE_TAG:
        return this.declare(btf.target(typeId), name, depth + 1);
      case BTF_KIND.PTR: {
        const target = btf.strip(btf.target(typeId));
        const isCompound = btf.kind(target) === BTF_KIND.FUNC_PROTO || btf.kind(target) === BTF_KIND.ARRAY;
        const isDirect = isCompound && btf.kind(btf.target(typeId)) !== BTF_KIND.TYPEDEF;
        return this.declare(btf.target(typeId), isDirect ? `(*${name})` : `*${name}`, depth + 1);
      }
      case BTF_KIND.ARRAY: {
        const { elementId, count } = btf.arrayOf(typeId);
        return this.declare(elementId, `${name}[${count === 0 ? '' : count}]`, depth + 1);
      }
      case BTF_KIND.FUNC_PROTO:
        return this.declare(btf.target(typeId), `${name}(${this.#parameters(typeId, depth)})`, depth + 1);
      default:
        return join(this.#base(typeId, kind), name);
    }
  }

  /** The members of a struct or union; anonymous ones have theirs inside. */
  members(typeId: number, base = 0, depth = 0): MemberDescription[] {
    const btf = this.#btf;
    const id = btf.strip(typeId);
    const members: MemberDescription[] = [];
    for (let i = 0; i < btf.vlen(id); i++) {
      if (depth > MAX_DEPTH || this.#budget-- <= 0)
        throw new VmcoreError('BTF is damaged: a type contains itself');
      const member = btf.member(id, i);
      const inner = btf.strip(member.typeId);
      const isCompound = btf.kind(inner) === BTF_KIND.STRUCT || btf.kind(inner) === BTF_KIND.UNION;
      const isUnnamed = isCompound && btf.name(inner) === '' && inner === member.typeId;
      const bits = base + member.bits;
      members.push({
        name: member.name,
        type: this.declare(member.typeId, '', depth),
        declaration: this.declare(member.typeId, member.name, depth),
        typeId: member.typeId,
        bits,
        sizeBytes: btf.sizeOf(member.typeId),
        bitFieldWidth: member.bitFieldWidth,
        members: isUnnamed ? this.members(inner, bits, depth + 1) : undefined,
      });
    }
    return members;
  }

  #base(typeId: number, kind: number): string {
    const keyword = KEYWORD.get(kind);
    const name = this.#btf.name(typeId);
    if (keyword === undefined) return name;
    return name === '' ? `${keyword} {...}` : `${keyword} ${name}`;
  }

  #parameters(typeId: number, depth: number): string {
    const ids = this.#btf.parameters(typeId);
    if (ids.length === 0) return 'void';
    // The last parameter of a variadic function has no type.
    return ids.map((id) => (id === 0 ? '...' : this.declare(id, '', depth + 1))).join(', ');
  }
}
