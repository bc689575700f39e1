#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Lets a process go on from its last checkpoint, under its own PID:
#     go-on.sh DIRECTORY
set -eu

directory=${1:?usage: go-on.sh DIRECTORY}
exec criu restore --images-dir "$directory/last" --log-file restore.log --restore-detached
