/** ::ffff:0:0/96 (RFC 4291, 2.5.5.2): what a socket of IPv6 that serves IPv4 too has as its peer. */
function isMapped(address: Uint8Array): boolean {
  return address.length === 16 && address.every((byte, i) => i > 11 || byte === (i < 10 ? 0 : 0xff));
}

/** An IPv4 address inside an IPv6 one as what it is; any other as it was. Addresses have 4 or 16 bytes. */
export function unmapped(address: Uint8Array): Uint8Array {
  return isMapped(address) ? address.subarray(12) : address;
}

/** Whether an address is the machine's own, which needs no network: 127.0.0.0/8 or ::1. */
export function isLoopbackAddress(address: Uint8Array): boolean {
  const plain = unmapped(address);
  return plain.length === 4 ? plain[0] === 127 : plain.every((byte, i) => byte === (i === 15 ? 1 : 0));
}
