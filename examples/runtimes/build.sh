#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Compiles the servers in Go and Java with the compilers of a Debian release:
#     examples/runtimes/build.sh RELEASE DIRECTORY      writes DIRECTORY/sums and DIRECTORY/*.class
# Needs root, mmdebstrap and the network. The build runs in a minimal system of that release, which is thrown away.
set -eu

release=${1:?usage: build.sh RELEASE DIRECTORY}
output=${2:?usage: build.sh RELEASE DIRECTORY}
here=$(cd "$(dirname "$0")" && pwd)
mirror=${OTHERWORLD_MIRROR:-http://deb.debian.org/debian}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
mkdir "$work/sums"
cp "$here/sums.go" "$here/Sums.java" "$work/sums"
cat >"$work/compile" <<'SCRIPT'
set -e
cd /sums
mkdir out
HOME=/sums CGO_ENABLED=0 go build -o out/sums sums.go
javac -d out Sums.java
tar -C out -cf /sums.tar .
SCRIPT

echo "runtimes: compiling in a minimal Debian $release"
mmdebstrap --quiet --mode=root --variant=apt --architectures=amd64 --skip=essential/unlink \
  --include=golang-go,default-jdk-headless \
  --aptopt='Apt::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
  --customize-hook="copy-in $work/sums $work/compile /" \
  --customize-hook='chroot "$1" sh /compile' \
  --customize-hook="copy-out /sums.tar $work" \
  "$release" /dev/null "deb $mirror $release main"
mkdir -p "$output"
tar -C "$output" -xf "$work/sums.tar"
echo "runtimes: $output"
