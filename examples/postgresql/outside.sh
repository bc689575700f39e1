#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Lets Debian's PostgreSQL listen to the network, and lets the host of a guest in without a password.
set -eu

echo "listen_addresses = '*'" >/etc/postgresql/17/main/conf.d/outside.conf
echo 'host all all 10.0.2.2/32 trust' >>/etc/postgresql/17/main/pg_hba.conf
systemctl restart postgresql@17-main
