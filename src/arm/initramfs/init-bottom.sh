#!/bin/sh
# Runs in the crash initramfs when the root file system is mounted: puts the runtime and the payload where they
# outlive the initramfs, and has /init go on with enter.sh. The squashfs's file is unlinked later; the loop device
# keeps its pages.
case $1 in
prereqs)
    # After every other script of this stage: what comes later is not reached.
    for script in "${0%/*}"/*; do
        case ${script##*/} in
        ORDER | zz-otherworld) ;;
        *) echo "${script##*/}" ;;
        esac
    done
    exit 0
    ;;
esac
. /otherworld/tools.sh
/sbin/modprobe -b loop
/sbin/modprobe -b squashfs
tool mount -t tmpfs -o X-mount.mkdir,mode=0700,nosuid,nodev tmpfs /run/otherworld
tool cp -a /otherworld/run/. /run/otherworld
tool mount -t squashfs -o loop,ro,X-mount.mkdir /otherworld/runtime.squashfs /run/otherworld/runtime
# /init reads this file after each script.
echo '. /otherworld/enter.sh' >>/conf/param.conf
