#!/bin/sh
# Runs in a mount namespace of its own, before the crash initramfs is loaded: in the unpacked tree $1, what its scripts
# will run when the root file system is mounted, and the programs that they make reachable.
tree=$1
kernel=$2

fail() {
    echo "$*" >&2
    exit 1
}

inside() {
    env -i PATH=/sbin:/usr/sbin:/bin:/usr/bin rootmnt=/root init=/run/otherworld/payload/init chroot "$tree" "$@"
}

runtime=/run/otherworld/runtime
from_runtime() {
    program=$1
    shift
    inside $runtime/lib/ld-linux-x86-64.so.2 --library-path $runtime/lib "$runtime/bin/$program" "$@"
}

mkdir -p "$tree/dev" "$tree/proc" "$tree/sys" "$tree/run" "$tree/root"
mount --rbind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
mount -t sysfs sysfs "$tree/sys"
mount -t tmpfs tmpfs "$tree/run"

[ -x "$tree/init" ] || fail "it has no /init"
for script in /init /otherworld/tools.sh /otherworld/enter.sh /conf/conf.d/otherworld; do
    inside /bin/sh -n $script || fail "its shell cannot read $script"
done
grep -q 'conf/conf\.d/\*' "$tree/init" || fail "its /init does not read the files in /conf/conf.d"
last=$(grep '^/scripts/' "$tree/scripts/init-bottom/ORDER" | tail -n 1)
[ "$last" = '/scripts/init-bottom/zz-otherworld "$@"' ] || fail "its last script is not ours: $last"
for module in loop squashfs; do
    inside /sbin/modprobe -b $module || fail "its modprobe cannot load $module of $kernel"
done
for tool in switch_root rm; do
    inside /otherworld/lib/ld-linux-x86-64.so.2 --library-path /otherworld/lib /otherworld/bin/$tool --version \
        >/dev/null || fail "$tool does not run"
done
inside /scripts/init-bottom/zz-otherworld || fail "its script that mounts the runtime ends with status $?"
grep -q '^\. /otherworld/enter\.sh$' "$tree/conf/param.conf" || fail "its /init would not go on with enter.sh"
[ -x "$tree/run/otherworld/payload/init" ] || fail "the crash world's init is not in its place"
from_runtime node --version >/dev/null || fail "Node.js does not run"
from_runtime criu --version >/dev/null || fail "CRIU does not run"
from_runtime node /run/otherworld/payload/crash-world.mjs self-test || fail "the crash world's program does not run"
