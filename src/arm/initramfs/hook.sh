#!/bin/sh
# mkinitramfs hook: what the crash initramfs needs besides the way to the root file system.
case $1 in
prereqs)
    exit 0
    ;;
esac
. /usr/share/initramfs-tools/hook-functions
copy_exec "$(command -v losetup)" /sbin/losetup
# klibc has no cp, and busybox need not be there.
copy_exec "$(command -v cp)" /bin/cp
manual_add_modules loop squashfs
