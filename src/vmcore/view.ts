import type { BindContext, Bound, Compiled } from './bound.ts';
import { BindError } from './errors.ts';
import type { Field, Fields, StructDecl, View } from './field.ts';
import type { Layouts, MemberLayout } from './layout.ts';
import { MemberBinder } from './member-reader.ts';
import { type Read, StructView, type WindowSource } from './struct-view.ts';

export type { Bound } from './bound.ts';
export * from './field.ts';
export type { Flags } from './flags.ts';
export type { Window, WindowSource } from './struct-view.ts';

/** A getter that binds its member when it is first called, and makes way for the read alone then. */
function defineMember(prototype: object, key: string, bind: () => Read): void {
  const define = (read: Read): void => {
    Object.defineProperty(prototype, key, {
      configurable: true,
      enumerable: true,
      get(this: StructView) {
        return read(this);
      },
    });
  };
  define((view) => {
    const read = bind();
    define(read);
    return read(view);
  });
}

/** A member as one kernel has it; without `layout` if it has none of the alternatives. */
interface Located {
  readonly field: Field<unknown>;
  readonly path: string;
  readonly layout: MemberLayout | undefined;
}

/** The first alternative of a field that the kernel has, else its first. */
function locate(structure: string, key: string, field: Field<unknown>, layouts: Layouts): Located {
  for (let at: Field<unknown> | undefined = field; at !== undefined; at = at.otherwise) {
    for (const path of pathsOf(at, key)) {
      const layout = layouts.member(structure, path);
      if (layout !== undefined) return { field: at, path, layout };
    }
  }
  return { field, path: pathsOf(field, key)[0] ?? key, layout: undefined };
}

function pathsOf(field: Field<unknown>, key: string): readonly string[] {
  return field.paths.length === 0 ? [key] : field.paths;
}

/**
 * Compiles a declaration for a kernel's layouts, as {@link Structures.bind} says it.
 */
function compileStruct<F extends Fields>(decl: StructDecl<F>, context: BindContext): Compiled<F> {
  const { layouts, release } = context;
  const size = layouts.sizeOf(decl.name);
  if (size === undefined) throw new BindError(decl.name, undefined, release, 'does not exist');
  class BoundView extends StructView {}
  const binder = new MemberBinder(context, decl.name, size);
  const fields = new Map(Object.entries<Field<unknown>>(decl.fields));
  const bindMember = (key: string, declared: Field<unknown>): Read => {
    const { field, path, layout } = locate(decl.name, key, declared, layouts);
    if (layout !== undefined) return binder.bind(field.spec, layout, path);
    if (declared.isOptional) return () => undefined;
    throw new BindError(decl.name, path, release, 'does not exist');
  };
  for (const [key, field] of fields) defineMember(BoundView.prototype, key, () => bindMember(key, field));
  const layoutOf = (member: string): MemberLayout | undefined => {
    const field = fields.get(member);
    const declared = field && locate(decl.name, member, field, layouts).layout;
    return declared ?? layouts.member(decl.name, member);
  };
  const offsets = new Map<string, number>();
  const offsetOf = (member: string): number => {
    const offset = offsets.get(member) ?? layoutOf(member)?.offsetBytes;
    if (offset === undefined) throw new BindError(decl.name, member, release, 'does not exist');
    offsets.set(member, offset);
    return offset;
  };
  // The getters just defined are those of View<F>: the one place where the type is asserted instead of
  // inferred.
  const at = (address: bigint, source: WindowSource): View<F> =>
    new BoundView(address, source) as unknown as View<F>;
  return {
    name: decl.name,
    size,
    at,
    offsetOf,
    has: (member) => {
      const field = fields.get(member);
      return field !== undefined && locate(decl.name, member, field, layouts).layout !== undefined;
    },
    bindAll: () => {
      for (const [key, field] of fields) bindMember(key, field);
    },
  };
}

/**
 * Declarations compiled for the layouts of one kernel, each when it is wanted first. All that read this
 * kernel can share them, each with a memory of its own.
 */
export class Structures<L extends Layouts = Layouts> {
  readonly layouts: L;
  readonly #release: string;
  readonly #compiled = new WeakMap<StructDecl<Fields>, unknown>();

  constructor(layouts: L, release: string) {
    this.layouts = layouts;
    this.#release = release;
  }

  /**
   * Binds a declaration to the layouts and to a memory. Throws a BindError if there is no such structure.
   * Reading a member throws one that names structure, member and release if it is not optional and missing,
   * or has another size or another kind.
   */
  bind<F extends Fields>(decl: StructDecl<F>, source: WindowSource): Bound<F> {
    const compiled = this.#compile(decl);
    const at = (address: bigint): View<F> => compiled.at(address, source);
    return {
      ...compiled,
      at,
      containerOf: (memberAddress, member) => at(memberAddress - BigInt(compiled.offsetOf(member))),
    };
  }

  #compile<F extends Fields>(decl: StructDecl<F>): Compiled<F> {
    const known = this.#compiled.get(decl);
    // The map is filled below only, with what was made of the declaration itself.
    if (known !== undefined) return known as Compiled<F>;
    const { layouts } = this;
    const compiled = compileStruct(decl, {
      layouts,
      release: this.#release,
      compile: (inner) => this.#compile(inner),
    });
    this.#compiled.set(decl, compiled);
    return compiled;
  }
}
