import { WrongUse } from './error.ts';

/** The Debian releases that guests run: 13 (kernel 6.12, CRIU 4.1) and 12 (kernel 6.1, CRIU 3.17). */
export const releases = ['trixie', 'bookworm'] as const;
export type Release = (typeof releases)[number];

/** @throws WrongUse for a name that is not a release of a guest. */
export function parseRelease(name: string): Release {
  const release = releases.find((known) => known === name);
  if (!release) throw new WrongUse(`unknown release ${name}; guests are ${releases.join(' or ')}`);
  return release;
}

/**
 * What every guest has, with what Debian recommends: a small system with systemd, and what Otherworld needs
 * on any machine.
 */
export const basePackages: readonly string[] = [
  'systemd',
  'systemd-sysv',
  'udev',
  'dbus',
  'libpam-systemd',
  'kmod',
  'e2fsprogs',
  'iproute2',
  'procps',
  'openssh-server',
  'linux-image-cloud-amd64',
  'initramfs-tools',
  'zstd',
  'criu',
  'libatomic1',
  'kexec-tools',
  'squashfs-tools',
  'ndctl',
  'daxctl',
];

/** Source lines of a release, for mmdebstrap. */
export function aptSources(release: Release): string[] {
  return [
    `deb http://deb.debian.org/debian ${release} main`,
    `deb http://deb.debian.org/debian ${release}-updates main`,
    `deb http://deb.debian.org/debian-security ${release}-security main`,
  ];
}
