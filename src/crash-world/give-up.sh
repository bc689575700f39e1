#!/bin/sh
# Writes the incident of a crash world that brings nothing back; $1 says why. Our program does it if it still runs, with
# the runtime's Node.js or with that of the root file system: it can read the dead kernel's log. Without it, the incident
# is what a shell can write.
reason=$1
run=${OTHERWORLD_RUN:-/run/otherworld}
incidents=${OTHERWORLD_INCIDENTS:-/var/lib/otherworld/incidents}
payload=$run/payload
runtime=$run/runtime

with_program() {
    timeout --kill-after=5 300 "$@" "$payload/crash-world.mjs" give-up "$reason" </dev/null >>"$run/init.log" 2>&1
    # Written as soon as there is a report.
    [ -e "$run/given-up" ]
}

with_runtime() {
    [ -x "$runtime/bin/node" ] &&
        with_program "$runtime/lib/ld-linux-x86-64.so.2" --library-path "$runtime/lib" "$runtime/bin/node"
}

with_system() {
    node=$(cat "$payload/system-node")
    [ -x "$node" ] && ln -sfn "$(cat "$payload/system-modules")" "$run/node_modules" && with_program "$node"
}

# A text between quotes in JSON.
quoted() {
    printf '"%s"' "$(printf '%s' "$1" | tr '\n\t' '  ' | LC_ALL=C tr -cd '[:print:]' | tr -d '"\\')"
}

with_shell() {
    [ -n "$OTHERWORLD_INCIDENTS" ] || timeout --kill-after=5 60 mount -a -O no_netdev
    id=$(date -u +%Y-%m-%dT%H-%M-%SZ)
    directory=$incidents/$id
    mkdir -p -m 0700 "$incidents" && mkdir -p -m 0700 "$directory" || return
    umask 077
    dmesg >"$directory/crash-kernel.txt"
    cp "$run/init.log" "$directory/crash-world.log"
    missing="the dead kernel's log could not be read without Node.js"
    if command -v makedumpfile >/dev/null && timeout --kill-after=5 300 makedumpfile --dump-dmesg /proc/vmcore "$directory/dmesg.txt"; then
        missing="the dead kernel's log was read by makedumpfile"
    fi
    cat >"$directory/report.json" <<EOF
{
  "version": 1,
  "id": "$id",
  "state": "abandoned",
  "crashKernelRelease": $(quoted "$(uname -r)"),
  "stages": [],
  "processes": [],
  "unmatchedRules": [],
  "memory": { "reservedBytes": $(cat "$payload/reserved-bytes"), "peakUsedBytes": 0, "reclaimedBytes": 0 },
  "errors": [$(quoted "$reason")],
  "notes": [$(quoted "$missing")]
}
EOF
    sync
}

with_runtime || with_system || with_shell >>"$run/init.log" 2>&1
