#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Lets Debian's MariaDB listen to the network, and lets the host of a guest in, as user and with password `outside`.
set -eu

# Of the name of a client it would ask a name server, which a guest does not have.
cat >/etc/mysql/mariadb.conf.d/99-outside.cnf <<CONFIGURATION
[mariadbd]
bind-address = 0.0.0.0
skip-name-resolve
CONFIGURATION
systemctl restart mariadb
mariadb --execute "CREATE USER outside@10.0.2.2 IDENTIFIED BY 'outside'; GRANT ALL ON *.* TO outside@10.0.2.2"
