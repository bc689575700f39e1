#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Saves a running process and its descendants into memory, again and again, until it ends:
#     keep.sh PID DIRECTORY SECONDS          DIRECTORY: on a tmpfs, for instance /dev/shm/mine
# DIRECTORY/last leads to the newest checkpoint that is complete; the one before it is removed.
set -eu

pid=${1:?usage: keep.sh PID DIRECTORY SECONDS}
directory=${2:?usage: keep.sh PID DIRECTORY SECONDS}
seconds=${3:?usage: keep.sh PID DIRECTORY SECONDS}

mkdir -p "$directory"
number=0
while [ -e "/proc/$pid" ]; do
  number=$((number + 1))
  mkdir "$directory/$number"
  if ! criu dump --tree "$pid" --images-dir "$directory/$number" --log-file dump.log --leave-running; then
    [ -e "/proc/$pid" ] || exit 0
    tail -n 20 "$directory/$number/dump.log" >&2
    exit 1
  fi
  ln -s "$number" "$directory/next"
  mv -T "$directory/next" "$directory/last"
  rm -rf "$directory/$((number - 1))"
  sleep "$seconds"
done
