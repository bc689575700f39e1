#!/bin/sh
# PID 1 of the crash world: brings back the protected processes, then becomes the system's own init. Whatever fails
# on the way, the last line is reached and the machine boots.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
run=/run/otherworld
runtime=$run/runtime

say() {
    echo "otherworld: $*" >/dev/kmsg
}

# What systemd would mount first, in the way it would (src/shared/mount-setup.c): it takes what it finds mounted.
prepare() {
    mkdir -p /dev/pts /dev/shm /dev/mqueue
    mount -t devpts -o noexec,nosuid,gid=5,mode=0620,ptmxmode=000 devpts /dev/pts ||
        mount -o remount,noexec,nosuid,gid=5,mode=0620 /dev/pts
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
    mount -t mqueue -o nosuid,nodev,noexec mqueue /dev/mqueue
    mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
    mount -o remount,rw /
    ip link set lo up
    # What criu restore asks the kernel about sockets and networks.
    for module in unix_diag inet_diag tcp_diag udp_diag netlink_diag raw_diag af_packet_diag nf_tables tun; do
        modprobe -q "$module"
    done
}

OTHERWORLD_BEGAN=$(cut -d ' ' -f 1 /proc/uptime)
export OTHERWORLD_BEGAN
say "the crash world begins"
prepare >$run/init.log 2>&1
if [ -x $runtime/bin/node ]; then
    # A session of its own: nothing that is restored may find itself in one with PID 1's terminal. And a limit: whatever a
    # damaged kernel's memory makes of the program, the machine boots.
    setsid --wait timeout --kill-after=10 "$(cat $run/payload/time-limit)" \
        $runtime/lib/ld-linux-x86-64.so.2 --library-path $runtime/lib $runtime/bin/node \
        --max-semi-space-size=4 $run/payload/crash-world.mjs resurrect </dev/null >>$run/init.log 2>&1 ||
        say "resurrection ended with status $?; see $run/init.log"
else
    say "the runtime is not mounted, nothing can be brought back"
fi
exec /sbin/init </dev/console >/dev/console 2>&1
