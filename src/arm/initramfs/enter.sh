# Read by /init, as PID 1, when every script has run: enters the root file system with switch_root, which moves /proc, /sys
# and /run along. /init would use run-init, which ends, and the kernel with it, if a directory of the initramfs is
# not empty after its files were deleted: what udev left behind may write at any time. switch_root deletes in a
# process of its own, and what cannot be deleted stays.
# shellcheck disable=SC2154
. /otherworld/tools.sh
# Where udev's script has moved /dev, a symbolic link is in its place; switch_root would unmount what it leads to.
if [ -h /dev ]; then
    tool rm -f /dev
fi
if [ ! -h /dev ] && [ -z "$drop_caps" ]; then
    unset debug MODPROBE_OPTIONS DPKG_ARCH ROOTFLAGS ROOTFSTYPE ROOTDELAY ROOT IP BOOT BOOTIF DEVICE UBIMTD blacklist break \
        panic quiet readonly resume resume_offset noresume fastboot forcefsck fsckfix starttime
    # In a shell of its own first: where there is no console, a redirection that fails would be the end.
    if (: <"$rootmnt/dev/console" >"$rootmnt/dev/console") 2>"$rootmnt/dev/null"; then
        exec <"$rootmnt/dev/console" >"$rootmnt/dev/console" 2>&1
    fi
    exec /otherworld/lib/ld-linux-x86-64.so.2 --library-path /otherworld/lib /otherworld/bin/switch_root \
        "$rootmnt" "$init"
fi
