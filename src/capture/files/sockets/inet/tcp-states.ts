import { tcpState } from '../../../../linux/sock.ts';

/** States in which the peer has ended its side. */
export const peerEnded: ReadonlySet<number> = new Set([
  tcpState.closeWait,
  tcpState.lastAck,
  tcpState.closing,
]);
/** States in which this side is ended, and the peer has not acknowledged it. */
export const ending: ReadonlySet<number> = new Set([tcpState.finWait1, tcpState.lastAck, tcpState.closing]);

/** States of a connection that both ends have made, and of which one direction is open at least. */
export const connectedStates: ReadonlySet<number> = new Set([
  ...[tcpState.established, tcpState.finWait2],
  ...peerEnded,
  ...ending,
]);
