# initramfs-tools' boot script of `otherworld doctor --deep`: no disk of this machine is there, so a copy of the initramfs itself
# is the root file system.
. /otherworld/tools.sh

mount_top() {
    :
}

mount_premount() {
    :
}

mountroot() {
    tool mount -t tmpfs -o size=75% tmpfs "$rootmnt"
    for directory in dev proc sys run; do
        mkdir -p "$rootmnt/$directory"
    done
    for part in bin sbin lib lib64 usr etc; do
        [ -e "/$part" ] && tool cp -a "/$part" "$rootmnt/"
    done
}

mount_bottom() {
    :
}
