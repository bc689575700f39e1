#!/bin/sh
# mkinitramfs hook: the modules that the crash initramfs needs besides those of the root file system. Its programs
# are not among what hooks install, where another one may put its own in their place: see tools.ts.
case $1 in
prereqs)
    exit 0
    ;;
esac
. /usr/share/initramfs-tools/hook-functions
manual_add_modules loop squashfs
