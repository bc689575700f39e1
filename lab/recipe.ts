/** A file that every guest gets on top of its packages. */
export interface RecipeFile {
  path: string;
  content: string;
  mode?: number;
}

/** Address of the guest in QEMU's user network, given statically: no DHCP client to wait for. */
const network = `[Match]
Type=ether

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
`;

/**
 * A root shell on the second serial port, for `lab console`: it works when the network does not. It is no
 * login session, so that no user manager has to start for it. An interactive shell does not end at SIGTERM,
 * and a reboot would wait for it.
 */
const consoleService = `[Unit]
Description=Root shell on the second serial port

[Service]
ExecStart=/bin/bash --login
WorkingDirectory=/root
Environment=HOME=/root TERM=linux LANG=C.UTF-8
Type=idle
Restart=always
StandardInput=tty
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
TTYReset=yes
KillSignal=SIGHUP
TimeoutStopSec=2
UtmpIdentifier=ttyS1

[Install]
WantedBy=multi-user.target
`;

/**
 * Drivers that udev would load for features of the emulated CPU and machine, and that no program in a guest
 * needs: several seconds of every boot under emulation, in both worlds.
 */
const unneededDrivers = [
  'aesni_intel',
  'crc32_pclmul',
  'crct10dif_pclmul',
  'evdev',
  'ghash_clmulni_intel',
  'kvm_amd',
  'kvm_intel',
  'serio_raw',
  'sha1_ssse3',
  'sha256_ssse3',
  'sha512_ssse3',
  'vmw_vsock_vmci_transport',
  'vsock_loopback',
]
  .map((driver) => `blacklist ${driver}\n`)
  .join('');

/**
 * sshd without what costs time under emulation and is of no use on a loopback port. UsePAM stays on, so that
 * logins get a session as on a real machine.
 */
const sshd = `UseDNS no
PermitRootLogin prohibit-password
PasswordAuthentication no
MaxSessions 200
MaxStartups 100
AcceptEnv LANG LC_*
`;

/** Files of a guest, given the public key that may log in as root. */
export function recipeFiles(hostName: string, publicKey: string): RecipeFile[] {
  return [
    { path: 'etc/hostname', content: `${hostName}\n` },
    { path: 'etc/hosts', content: `127.0.0.1 localhost\n127.0.1.1 ${hostName}\n::1 localhost\n` },
    { path: 'etc/resolv.conf', content: 'nameserver 10.0.2.3\n' },
    { path: 'etc/fstab', content: '/dev/vda / ext4 errors=remount-ro 0 1\n' },
    { path: 'etc/systemd/network/10-ether.network', content: network },
    { path: 'etc/systemd/system/otherworld-lab-console.service', content: consoleService },
    { path: 'etc/ssh/sshd_config.d/otherworld-lab.conf', content: sshd },
    { path: 'etc/modules-load.d/otherworld-lab.conf', content: 'qemu_fw_cfg\n' },
    { path: 'etc/modprobe.d/otherworld-lab.conf', content: unneededDrivers },
    { path: 'etc/default/kexec', content: 'LOAD_KEXEC=false\n' },
    { path: 'etc/default/locale', content: 'LANG=C.UTF-8\n' },
    { path: 'root/.ssh/authorized_keys', content: publicKey, mode: 0o600 },
  ];
}

/** Units that a guest starts, besides those that its packages enable. */
export const enabledUnits = ['systemd-networkd.service', 'otherworld-lab-console.service'];

/** Units that only cost time in a guest that lives for minutes. */
export const maskedUnits = [
  // Compiles its profiles, which confine nothing that runs here.
  'apparmor.service',
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'cxl-monitor.service',
  'daxdev-reconfigure@.service',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
  'fstrim.timer',
  'getty@tty1.service',
  'modprobe@configfs.service',
  'modprobe@drm.service',
  'modprobe@efi_pstore.service',
  'ndctl-monitor.service',
  'serial-getty@ttyS0.service',
  'sys-kernel-config.mount',
  'sys-kernel-debug.mount',
  'systemd-binfmt.service',
  'systemd-networkd-wait-online.service',
  'systemd-pcrphase-sysinit.service',
  'systemd-pcrphase.service',
  // There is no time server to ask.
  'systemd-timesyncd.service',
  // Root's own service manager, started by every login over ssh.
  'user@0.service',
];

/** Generators that look for hardware that a guest does not have. */
export const maskedGenerators = [
  'systemd-gpt-auto-generator',
  'systemd-ssh-generator',
  'systemd-tpm2-generator',
];
