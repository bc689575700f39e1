#!/bin/sh
# PID 1 of the crash world: brings back the protected processes, then becomes the system's own init. Whatever fails
# on the way, the end is reached: the machine boots here if there may be somebody to keep, else into its ordinary system.
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

# Nothing was brought back, and a crash kernel is no place to stay in for nothing: an incident says why, and the machine
# reboots as it would after any panic.
give_up() {
    say "nothing is brought back: $1"
    sh $run/payload/give-up.sh "$1"
    seconds=$(cat $run/payload/reboot-after)
    [ "$seconds" != 0 ] || return
    say "the machine reboots in $seconds s"
    sleep "$seconds"
    sync
    mount -o remount,ro /
    echo b >/proc/sysrq-trigger
    sleep 60
}

# `otherworld doctor --deep` boots this far; it has no root file system with programs, and no dead kernel.
case " $(cat /proc/cmdline) " in
*' otherworld.deep '*)
    $runtime/lib/ld-linux-x86-64.so.2 --library-path $runtime/lib $runtime/bin/criu --version &&
        $runtime/lib/ld-linux-x86-64.so.2 --library-path $runtime/lib $runtime/bin/node \
            $run/payload/crash-world.mjs self-test && say "deep: the program runs"
    echo b >/proc/sysrq-trigger
    ;;
esac

OTHERWORLD_BEGAN=$(cut -d ' ' -f 1 /proc/uptime)
export OTHERWORLD_BEGAN
say "the crash world begins"
prepare >$run/init.log 2>&1

# Runs the program; its end is in $status.
resurrect() {
    # A session of its own: nothing that is restored may find itself in one with PID 1's terminal. And a limit: whatever a
    # damaged kernel's memory makes of the program, the machine boots.
    setsid --wait timeout --kill-after=10 "$limit" \
        $runtime/lib/ld-linux-x86-64.so.2 --library-path $runtime/lib $runtime/bin/node \
        --max-semi-space-size=4 $run/payload/crash-world.mjs resurrect </dev/null >>$run/init.log 2>&1
    status=$?
}

if [ -x $runtime/bin/node ]; then
    limit=$(cat $run/payload/time-limit)
    resurrect
    # A process that is to come back had the number that the program has now (STATUS_AGAIN): it gets another.
    if [ $status = 75 ]; then
        export OTHERWORLD_AGAIN=1
        resurrect
    fi
    case $status in
    0) problem= ;;
    124) problem="the resurrection was ended after its time limit of $limit s" ;;
    137) problem="the resurrection was killed, for want of memory or after its time limit of $limit s" ;;
    *) problem="the resurrection ended with status $status: $(tail -n 1 $run/init.log)" ;;
    esac
else
    problem="the runtime is not mounted"
fi
# What was restored and did not come to run: the program was ended before it let its processes go.
unreleased=/sys/fs/cgroup/otherworld-restore/cgroup.kill
[ ! -e $unreleased ] || echo 1 >$unreleased
# Connections that nobody comes back for are answered: without this file the boot knows of no sandbox.
unanswered=/sys/fs/cgroup/otherworld-unanswered/cgroup.kill
if [ -e $unanswered ] && { [ -n "$problem" ] || [ ! -e $run/handover.json ]; }; then
    echo 1 >$unanswered
fi
# What the program had made for connections, if it was ended while these were made.
[ ! -e /sys/class/net/otherworld0 ] || ip link delete otherworld0
[ "$(cat /sys/class/net/lo/mtu)" != 65535 ] || echo 65536 >/sys/class/net/lo/mtu
if [ -n "$problem" ]; then
    say "$problem; see $run/init.log"
    # This file is there when the first processes are let go: then there may be some that run again.
    [ -e $run/released ] || give_up "$problem"
fi
exec /sbin/init </dev/console >/dev/console 2>&1
