import { BTF_KIND, type Btf } from './btf.ts';
import { VmcoreError } from './errors.ts';
import type { Layouts, MemberKind, MemberLayout } from './layout.ts';

/** Deeper nesting of anonymous structures, or of arrays, than any kernel has. */
const MAX_DEPTH = 32;
/** Members looked at for one path. */
const MAX_MEMBERS = 100_000;

interface Place {
  readonly typeId: number;
  readonly bits: number;
  readonly bitFieldWidth: number;
}

const PATH = /^[A-Za-z_]\w*(\.[A-Za-z_]\w*|\[\d+\])*$/;

function splitPath(path: string): (string | number)[] {
  if (!PATH.test(path)) throw new TypeError(`"${path}" is no member path such as "a.b[0].c"`);
  return [...path.matchAll(/\[(\d+)\]|\w+/g)].map(([name, index]) =>
    index === undefined ? name : Number(index),
  );
}

/** Structure layouts out of BTF; answers are remembered. */
export class BtfLayouts implements Layouts {
  readonly btf: Btf;
  readonly #structs = new Map<string, number | undefined>();
  readonly #members = new Map<string, MemberLayout | undefined>();
  readonly #enumerators = new Map<string, number | undefined>();
  #budget = 0;

  constructor(btf: Btf) {
    this.btf = btf;
  }

  /** BTF type number of a struct, union or typedef of one; undefined if there is none. */
  structId(name: string): number | undefined {
    if (!this.#structs.has(name)) {
      const { STRUCT, UNION, TYPEDEF } = BTF_KIND;
      const [id] = this.btf.find(name, [STRUCT, UNION]);
      const [alias] = id === undefined ? this.btf.find(name, [TYPEDEF]) : [];
      this.#structs.set(name, id ?? (alias === undefined ? undefined : this.btf.strip(alias)));
    }
    return this.#structs.get(name);
  }

  sizeOf(structName: string): number | undefined {
    const id = this.structId(structName);
    return id === undefined ? undefined : this.btf.sizeOf(id);
  }

  enumerator(name: string): number | undefined {
    if (!this.#enumerators.has(name)) this.#enumerators.set(name, this.btf.enumerator(name));
    return this.#enumerators.get(name);
  }

  member(structName: string, path: string): MemberLayout | undefined {
    const key = `${structName} ${path}`;
    if (!this.#members.has(key)) this.#members.set(key, this.#resolve(structName, path));
    return this.#members.get(key);
  }

  #resolve(structName: string, path: string): MemberLayout | undefined {
    const id = this.structId(structName);
    if (id === undefined) return undefined;
    let place: Place = { typeId: id, bits: 0, bitFieldWidth: 0 };
    for (const step of splitPath(path)) {
      this.#budget = MAX_MEMBERS;
      const next =
        typeof step === 'string' ? this.#named(place.typeId, step, 0) : this.#element(place.typeId, step);
      if (next === undefined) return undefined;
      place = { ...next, bits: place.bits + next.bits };
    }
    return this.#layout(place, 0);
  }

  /** A member by name, searching anonymous structures and unions as the C compiler does. */
  #named(typeId: number, name: string, depth: number): Place | undefined {
    const { btf } = this;
    const id = btf.strip(typeId);
    const kind = btf.kind(id);
    if (kind !== BTF_KIND.STRUCT && kind !== BTF_KIND.UNION) return undefined;
    for (let i = 0; i < btf.vlen(id); i++) {
      if (this.#budget-- <= 0 || depth > MAX_DEPTH)
        throw new VmcoreError('BTF is damaged: a structure contains itself');
      const member = btf.member(id, i);
      if (member.name === name) return member;
      if (member.name !== '') continue;
      const inner = this.#named(member.typeId, name, depth + 1);
      if (inner !== undefined) return { ...inner, bits: member.bits + inner.bits };
    }
    return undefined;
  }

  #element(typeId: number, index: number): Place | undefined {
    const id = this.btf.strip(typeId);
    if (this.btf.kind(id) !== BTF_KIND.ARRAY) return undefined;
    const { elementId, count } = this.btf.arrayOf(id);
    if (count !== 0 && index >= count) return undefined;
    return { typeId: elementId, bits: index * this.btf.sizeOf(elementId) * 8, bitFieldWidth: 0 };
  }

  #layout(place: Place, depth: number): MemberLayout {
    if (depth > MAX_DEPTH) throw new VmcoreError('BTF is damaged: a type contains itself');
    const { btf } = this;
    const id = btf.strip(place.typeId);
    const encoding = btf.kind(id) === BTF_KIND.INT ? btf.intEncoding(id) : 0;
    const sizeBytes = btf.sizeOf(id);
    // Older compilers describe a bit field by the width in the type instead of in the member.
    const width = place.bitFieldWidth !== 0 ? place.bitFieldWidth : encoding & 0xff;
    const isBitField = place.bitFieldWidth !== 0 || (encoding !== 0 && width !== sizeBytes * 8);
    const isNamed = btf.kind(id) === BTF_KIND.STRUCT || btf.kind(id) === BTF_KIND.UNION;
    return {
      offsetBytes: place.bits >>> 3,
      sizeBytes,
      kind: this.#kind(id, encoding),
      signed: (encoding & (1 << 24)) !== 0 || (this.#isEnum(id) && btf.isEnumSigned(id)),
      bits: isBitField ? { offset: place.bits & 7, width } : undefined,
      element: this.#elementLayout(id, depth),
      only: this.#onlyLayout(id, place.bits, depth),
      structName: isNamed && btf.name(id) !== '' ? btf.name(id) : undefined,
    };
  }

  #isEnum(id: number): boolean {
    return this.btf.kind(id) === BTF_KIND.ENUM || this.btf.kind(id) === BTF_KIND.ENUM64;
  }

  #kind(id: number, encoding: number): MemberKind {
    switch (this.btf.kind(id)) {
      case BTF_KIND.INT:
        return (encoding & (1 << 26)) !== 0 ? 'bool' : 'integer';
      case BTF_KIND.PTR:
        return 'pointer';
      case BTF_KIND.ENUM:
      case BTF_KIND.ENUM64:
        return 'enum';
      case BTF_KIND.ARRAY:
        return 'array';
      case BTF_KIND.FLOAT:
        return 'float';
      case BTF_KIND.STRUCT:
      case BTF_KIND.UNION:
        return 'struct';
      default:
        return 'function';
    }
  }

  #elementLayout(id: number, depth: number): MemberLayout['element'] {
    if (this.btf.kind(id) !== BTF_KIND.ARRAY) return undefined;
    const { elementId, count } = this.btf.arrayOf(id);
    return { count, layout: this.#layout({ typeId: elementId, bits: 0, bitFieldWidth: 0 }, depth + 1) };
  }

  #onlyLayout(id: number, bits: number, depth: number): MemberLayout | undefined {
    const { btf } = this;
    if (btf.kind(id) !== BTF_KIND.STRUCT || btf.vlen(id) !== 1) return undefined;
    const member = btf.member(id, 0);
    if (member.bits !== 0 || btf.sizeOf(member.typeId) !== btf.ownSize(id)) return undefined;
    return this.#layout({ ...member, bits }, depth + 1);
  }
}
