#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Lets Debian's Apache serve visit.php and a large file, with the sessions of PHP on a tmpfs.
#     configure.sh [BYTES]          of the large file
set -eu

bytes=${1:-200000000}
here=$(cd "$(dirname "$0")" && pwd)

# Owner and mode are those of /var/lib/php/sessions, where Debian has them.
install -d -o root -g root -m 1733 /dev/shm/sessions
for directory in /etc/php/*/apache2/conf.d; do
  cp "$here/sessions.ini" "$directory/99-sessions.ini"
done
cp "$here/patient.conf" /etc/apache2/conf-enabled/
cp "$here/visit.php" /var/www/html/
head -c "$bytes" /dev/urandom >/var/www/html/large
systemctl restart apache2
