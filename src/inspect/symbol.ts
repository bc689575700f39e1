import { hex, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { Report } from './report.ts';

const ADDRESS = /^(0x[0-9a-f]{1,16}|[0-9a-f]{16})$/i;

/** A symbol's address, or what is at an address: `init_task`, `0xffffffff81000000`. Throws a VmcoreError if there is none. */
export function symbolReport(kernel: Kernel, text: string): Report {
  if (ADDRESS.test(text)) {
    const address = BigInt(/^0x/i.test(text) ? text : `0x${text}`);
    const found = kernel.symbolAt(address);
    if (found === undefined)
      throw new VmcoreError(`no symbol of kernel ${kernel.release} is at or below ${hex(address)}`);
    return {
      json: () => ({ address: hex(address), ...found }),
      text: () =>
        `${hex(address)} ${found.name}${found.offset === 0 ? '' : `+0x${found.offset.toString(16)}`}`,
    };
  }
  const address = kernel.symbolMaybe(text);
  if (address === undefined) {
    throw new VmcoreError(
      `kernel ${kernel.release} has no symbol ${text}: names are those of its /proc/kallsyms, without modules; addresses begin with 0x`,
    );
  }
  return { json: () => ({ name: text, address: hex(address) }), text: () => `${hex(address)} ${text}` };
}
