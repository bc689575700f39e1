import { constants } from 'node:os';
import { SystemCallError } from './errno.ts';
import { libcFunction } from './libc.ts';

const sendfile = libcFunction<[outFd: number, inFd: number, offset: BigInt64Array, count: number]>(
  'int64_t sendfile(int out_fd, int in_fd, void *offset, size_t count)',
);
const { EINTR } = constants.errno;

/**
 * Appends bytes of a file or a block device to a file at its position, within the kernel (sendfile(2)).
 * @returns how many; fewer than `length` only where what is read has ended
 * @throws SystemCallError, which does not say on which side it failed
 */
export function sendFile(outFd: number, inFd: number, offset: number, length: number): number {
  const at = new BigInt64Array([BigInt(offset)]);
  let sent = 0;
  while (sent < length) {
    const done = sendfile(outFd, inFd, at, length - sent);
    if (done === -EINTR) continue;
    if (done < 0) throw new SystemCallError('sendfile', -done);
    if (done === 0) break;
    sent += done;
  }
  return sent;
}
