import { socketState } from '../../../model/socket.ts';
import { SOCK_DGRAM } from '../../../system/abi.ts';
import { type Holders, holdersIn } from './holder-of.ts';
import type { PlannedName } from './restore-plan.ts';

/**
 * The sockets of a group that are bound when its processes are there. Connections that were accepted from one
 * of them have its name as well, and CRIU binds none of them. Throws an Error if there is one for which
 * nobody has a descriptor: it could not be bound.
 */
export function lateNamesOf(group: Holders, holderOf = holdersIn(group)): PlannedName[] {
  return group.files.files.flatMap((file): PlannedName[] => {
    if (file.type !== 'unix' || file.ownMake === undefined) return [];
    const { ownMake, name, state, socketType, backlog, listener } = file;
    if (socketType !== SOCK_DGRAM && state === socketState.established) return [];
    const [holder] = holderOf(file.id, listener);
    if (holder === undefined) throw new Error(`nobody has the socket ${ownMake.path}, which is to be bound`);
    const listens = state === socketState.listen ? { backlog } : {};
    return [{ ...holder, name: Buffer.from(name).toString('utf8'), ...ownMake, ...listens }];
  });
}
