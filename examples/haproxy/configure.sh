#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Puts HAProxy, at port 8000, in front of nginx, with pages to be fetched, and takes HAProxy's unit out of its sandbox.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
pages=/var/www/html/pages

mkdir -p "$pages" /etc/systemd/system/haproxy.service.d
for i in $(seq 0 49); do
  echo "page $i $((i * 2654435761 % 4294967296))" >"$pages/$i"
done
head -c 3000000 /dev/urandom >/var/www/html/large
cp "$here/nginx.conf" /etc/nginx/conf.d/inside.conf
grep -q '^frontend outside$' /etc/haproxy/haproxy.cfg || cat "$here/haproxy.cfg" >>/etc/haproxy/haproxy.cfg
cp "$here/no-sandbox.conf" /etc/systemd/system/haproxy.service.d/
systemctl daemon-reload
systemctl restart nginx haproxy
