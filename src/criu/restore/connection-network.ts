import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import * as z from 'zod';
import { INTERFACE, LENT_TABLE } from './names.ts';

/** No route, and no rule, that the machine has counts for less. */
export const LAST_METRIC = 0xffff_ffff;

/**
 * Largest packets of the interface, as no network has them. A socket has segments of 536 bytes until the size
 * of packets changes (tcp_current_mss, net/ipv4/tcp_output.c): it does when the connection goes its own way
 * again.
 */
const MTU = 1501;

/** Runs commands of ip(8). Throws an Error with the first thing that it complains about. */
export function ip(commands: readonly string[], options: readonly string[] = []): void {
  const { status, stderr, error } = spawnSync('ip', [...options, '-batch', '-'], {
    input: `${commands.join('\n')}\n`,
    encoding: 'utf8',
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`ip: ${stderr.trim().split('\n')[0] ?? `status ${status}`}`);
}

function isSix(address: string): boolean {
  return address.includes(':');
}

/** Takes the interface away, and with it its addresses and routes. */
export function deleteNetwork(): void {
  ip([`link delete ${INTERFACE}`]);
}

/** An interface that leads nowhere. */
function makeInterface(): void {
  if (existsSync(`/sys/class/net/${INTERFACE}`)) deleteNetwork();
  // Without its own first interface, which nobody would take away.
  spawnSync('modprobe', ['-q', 'dummy', 'numdummies=0']);
  ip([`link add ${INTERFACE} mtu ${MTU} type dummy`]);
}

function addTo(address: string): string {
  const rest = isSix(address) ? '/128 nodad' : '/32';
  return `address add ${address}${rest} dev ${INTERFACE}`;
}

/**
 * An interface that leads nowhere, with addresses and routes to everybody: what a connection needs of a
 * network to be made again where there is none. The routes count for less than any other.
 */
export function makeNetwork(addresses: readonly string[]): void {
  makeInterface();
  const routes = [
    ...(addresses.every(isSix) ? [] : ['0.0.0.0/0']),
    ...(addresses.some(isSix) ? ['::/0'] : []),
  ].map((all) => `route add ${all} dev ${INTERFACE} metric ${LAST_METRIC}`);
  try {
    ip([`link set ${INTERFACE} up`, ...addresses.map(addTo), ...routes]);
  } catch (error) {
    deleteNetwork();
    throw error;
  }
}

const addressesOf = z.array(z.object({ addr_info: z.array(z.object({ local: z.string().optional() })) }));

/** Those of some IPv4 addresses that the machine has on no interface, whether or not that is up. */
export function missingAddresses(addresses: readonly string[]): string[] {
  const { stdout, error } = spawnSync('ip', ['-4', '-json', 'address'], { encoding: 'utf8' });
  if (error !== undefined) throw error;
  const there = addressesOf.parse(JSON.parse(stdout)).flatMap((one) => one.addr_info);
  return addresses.filter((one) => there.every(({ local }) => local !== one));
}

/**
 * Gives the interface, which is there, addresses of connections that the machine does not have, and what is
 * sent from any of their addresses a route, where there is no other. Nobody else is to see anything of it: an
 * address may be another machine's by now. So it is none of this machine for who sends there or asks for it
 * (there is no local route), and who has no such address yet has none of the routes. IPv4 sends nothing from
 * an address that no interface has (ip_route_output_key_hash_rcu(), net/ipv4/route.c); IPv6 does.
 */
export function lendAddresses(addresses: readonly string[]): void {
  const { '-4': four, '-6': six } = byFamily(addresses);
  // At once: ip(8) sends one request after the other.
  const own = missingAddresses(four).flatMap((one) => [
    addTo(one),
    `route delete local ${one} dev ${INTERFACE} table local`,
  ]);
  ip([`link set ${INTERFACE} up`, ...own]);
  // As rules of the kernel: managers of networks take away others that they do not know.
  const ways = (all: readonly string[]): string[] => [
    `route add default dev ${INTERFACE} table ${LENT_TABLE}`,
    ...all.map((one) => `rule add ${ruleOf(one)}`),
  ];
  if (four.length > 0) ip(ways(four), ['-4']);
  if (six.length > 0) ip(ways(six), ['-6']);
}

function byFamily(addresses: readonly string[]): Record<'-4' | '-6', string[]> {
  return { '-4': addresses.filter((one) => !isSix(one)), '-6': addresses.filter(isSix) };
}

function ruleOf(address: string): string {
  return `from ${address} lookup ${LENT_TABLE} priority ${LAST_METRIC} protocol kernel`;
}

/** Takes rules away that a program has left which was ended. */
function flushRules(): void {
  for (const family of ['-4', '-6']) spawnSync('ip', [family, 'rule', 'flush', 'table', String(LENT_TABLE)]);
}

/** Takes away what {@link lendAddresses} has given, and the interface. Throws an Error if that fails. */
export function endLending(addresses: readonly string[]): void {
  const problems: unknown[] = [];
  for (const step of [
    ...addresses.map((one) => () => ip([`rule delete ${ruleOf(one)}`], [isSix(one) ? '-6' : '-4'])),
    deleteNetwork,
  ]) {
    try {
      step();
    } catch (error) {
      problems.push(error);
    }
  }
  if (problems.length > 0) throw problems[0];
}

/** Makes the interface in a system that runs, see {@link lendAddresses}. */
export function lendNetwork(addresses: readonly string[]): void {
  flushRules();
  makeInterface();
  try {
    lendAddresses(addresses);
  } catch (error) {
    flushRules();
    deleteNetwork();
    throw error;
  }
}
