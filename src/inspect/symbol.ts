import { type Module, moduleAt, moduleSymbols, readModules } from '../linux/module.ts';
import { hex, readable, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { Inspection } from './inspection.ts';

const ADDRESS = /^(0x[0-9a-f]{1,16}|[0-9a-f]{16})$/i;

/** What an address belongs to. */
interface Place {
  /** Undefined in a module without a symbol there. */
  readonly name: string | undefined;
  readonly offset: number;
  readonly module?: string;
}

function placeOf(kernel: Kernel, modules: readonly Module[], address: bigint): Place | undefined {
  const inImage = kernel.symbolAt(address);
  if (inImage !== undefined) return inImage;
  const found = moduleAt(kernel, modules, address);
  if (found === undefined) return undefined;
  const { module, symbol } = found;
  return { name: symbol?.name, offset: Number(address - (symbol?.address ?? address)), module };
}

function placeText({ name, offset, module }: Place): string {
  const at = name === undefined ? '' : `${name}${offset === 0 ? '' : `+0x${offset.toString(16)}`}`;
  return module === undefined ? at : `${at} [${module}]`.trim();
}

function addressInspection(kernel: Kernel, address: bigint): Inspection {
  const { modules, damage } = readModules(kernel);
  const place = placeOf(kernel, modules, address);
  if (place === undefined) {
    const doubt = damage === undefined ? '' : ` (the list of modules is damaged: ${damage})`;
    throw new VmcoreError(
      `${hex(address)} is neither in kernel ${kernel.release} nor in a module of it${doubt}`,
    );
  }
  return {
    json: () => ({ address: hex(address), ...place }),
    text: () => `${hex(address)} ${placeText(place)}`,
  };
}

/**
 * A symbol's address, or what is at an address: `init_task`, `0xffffffff81000000`. Throws a VmcoreError if
 * there is none.
 */
export function symbolInspection(kernel: Kernel, text: string): Inspection {
  if (ADDRESS.test(text)) return addressInspection(kernel, BigInt(/^0x/i.test(text) ? text : `0x${text}`));
  const address = kernel.symbolMaybe(text);
  if (address !== undefined) {
    return { json: () => ({ name: text, address: hex(address) }), text: () => `${hex(address)} ${text}` };
  }
  const { modules, damage } = readModules(kernel);
  const found = modules.flatMap((module) => {
    const symbols = readable(() => [...moduleSymbols(kernel, module)]) ?? [];
    return symbols.filter(({ name }) => name === text);
  });
  if (found.length === 0) {
    const doubt = damage === undefined ? '' : ` (the list of modules is damaged: ${damage})`;
    throw new VmcoreError(
      `kernel ${kernel.release} has no symbol ${text}: names are those of its /proc/kallsyms; addresses begin with 0x${doubt}`,
    );
  }
  const symbols = found.map(({ module, name, address: at }) => ({ name, address: hex(at), module }));
  return {
    json: () => (symbols.length === 1 ? (symbols[0] ?? {}) : { symbols }),
    text: () => symbols.map(({ name, address: at, module }) => `${at} ${name} [${module}]`).join('\n'),
  };
}
