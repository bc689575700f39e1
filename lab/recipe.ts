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

/** A root shell on the second serial port, for \`lab console\`: it works when the network does not. */
const consoleService = `[Unit]
Description=Root shell on the second serial port
After=systemd-user-sessions.service

[Service]
ExecStart=-/sbin/agetty --autologin root --keep-baud 115200 ttyS1 linux
Type=idle
Restart=always
UtmpIdentifier=ttyS1
TTYPath=/dev/ttyS1
TTYReset=yes
IgnoreSIGPIPE=no
SendSIGHUP=yes

[Install]
WantedBy=multi-user.target
`;

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
    { path: 'etc/default/kexec', content: 'LOAD_KEXEC=false\n' },
    { path: 'etc/default/locale', content: 'LANG=C.UTF-8\n' },
    { path: 'root/.ssh/authorized_keys', content: publicKey, mode: 0o600 },
  ];
}

/** Units that a guest starts, besides those that its packages enable. */
export const enabledUnits = ['systemd-networkd.service', 'otherworld-lab-console.service'];

/** Units that only cost time in a guest that lives for minutes. */
export const maskedUnits = [
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
  'fstrim.timer',
  'serial-getty@ttyS0.service',
  'getty@tty1.service',
  'systemd-networkd-wait-online.service',
  'systemd-pcrphase.service',
  'systemd-pcrphase-sysinit.service',
  'systemd-binfmt.service',
  'sys-kernel-debug.mount',
];
