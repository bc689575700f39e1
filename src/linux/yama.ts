import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, bool, pointer, struct } from '../vmcore/view.ts';
import { listReadEntries } from './list.ts';

/**
 * `struct ptrace_relation` (security/yama/yama_lsm.c, which has no header): who may trace whom, as
 * prctl(PR_SET_PTRACER) said.
 */
export const ptraceRelation = struct('ptrace_relation', {
  tracee: pointer,
  invalid: bool,
  node: addressOf('node'),
});

const MAX_RELATIONS = 1 << 20;

/**
 * How many others a process (the address of its first thread) has permitted to trace it; 0 where Yama is not
 * in the kernel. Of a damaged list as much is read as can be.
 */
export function permittedTracers(kernel: Kernel, tracee: bigint): number {
  const head = kernel.symbolMaybe('ptracer_relations');
  if (head === undefined || !kernel.hasMember('ptrace_relation', 'tracee')) return 0;
  const Relation = kernel.bind(ptraceRelation);
  const { entries } = listReadEntries(kernel, head, Relation, 'node', MAX_RELATIONS);
  return entries.filter((relation) => relation.tracee === tracee && !relation.invalid).length;
}
