#!/bin/sh
# Runs in the crash initramfs when the root file system is mounted: puts the runtime and the payload where they
# outlive the initramfs. The squashfs's file is unlinked by run-init; the loop device keeps its pages.
case $1 in
prereqs)
    exit 0
    ;;
esac
modprobe -b loop
modprobe -b squashfs
mkdir -p /run/otherworld
mount -t tmpfs -o mode=0700,nosuid,nodev tmpfs /run/otherworld
mkdir -p /run/otherworld/runtime
/bin/cp -a /otherworld/payload /run/otherworld/payload
device=$(/sbin/losetup -f -r --show /otherworld/runtime.squashfs) &&
    mount -t squashfs -o ro "$device" /run/otherworld/runtime
ln -s runtime/node_modules /run/otherworld/node_modules
