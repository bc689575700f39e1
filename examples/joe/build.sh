#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds JOE 4.6 from Debian's source package, with a crash procedure, for a Debian release:
#     examples/joe/build.sh RELEASE OUTPUT        RELEASE: trixie, bookworm; OUTPUT: the executable to be written
# Needs root, mmdebstrap and the network. The build runs in a minimal system of that release, which is thrown away.
# Debian's package `joe` has the files in /etc/joe that the editor reads.
set -eu

release=${1:?usage: build.sh RELEASE OUTPUT}
output=${2:?usage: build.sh RELEASE OUTPUT}
here=$(cd "$(dirname "$0")" && pwd)
mirror=${OTHERWORLD_MIRROR:-http://deb.debian.org/debian}
source=joe_4.6.orig.tar.gz
# As in Debian's signed index of sources, for trixie and for bookworm.
sha256=495a0a61f26404070fe8a719d80406dc7f337623788e445b92a9f6de512ab9de

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

fetch() {
  echo "joe: fetching $source"
  /usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file \
    "$mirror/pool/main/j/joe/$source" "$work/$source" "SHA256:$sha256" >"$work/log" 2>&1 ||
    { cat "$work/log"; echo "joe: $source cannot be had from $mirror"; exit 1; }
  echo "$sha256  $work/$source" | sha256sum --check --quiet
}

prepare() {
  tar -C "$work" -xf "$work/$source"
  patch --quiet -d "$work/joe-4.6" -p1 <"$here/crash-procedure.patch"
  cp "$here/../../sdk/c/otherworld.h" "$work/joe-4.6/joe/"
}

compile() {
  echo "joe: compiling in a minimal Debian $release"
  cat >"$work/compile" <<'SCRIPT'
set -e
cd /joe-4.6
./configure --prefix=/usr --sysconfdir=/etc >/build.log 2>&1
make -C joe -j"$(nproc)" >>/build.log 2>&1
strip joe/joe
SCRIPT
  mmdebstrap --quiet --mode=root --variant=apt --architectures=amd64 --skip=essential/unlink \
    --include=gcc,libc6-dev,make,libncurses-dev \
    --aptopt='Apt::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
    --customize-hook="copy-in $work/joe-4.6 $work/compile /" \
    --customize-hook='chroot "$1" sh /compile || { tail -n 30 "$1/build.log"; exit 1; }' \
    --customize-hook="copy-out /joe-4.6/joe/joe $work" \
    "$release" /dev/null "deb $mirror $release main"
}

fetch
prepare
compile
mkdir -p "$(dirname "$output")"
install -m 755 "$work/joe" "$output"
echo "joe: $output"
