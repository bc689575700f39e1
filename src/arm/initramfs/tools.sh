# Programs of our own with libraries of our own: what the distribution's hooks put into the archive, or under which name,
# cannot concern them.
tool() {
    name=$1
    shift
    /otherworld/lib/ld-linux-x86-64.so.2 --library-path /otherworld/lib "/otherworld/bin/$name" "$@"
}
