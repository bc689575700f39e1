# Starts COUNT programs of six kinds that wait for input, in a guest. Called as: processes.sh COUNT
set -eu
count=$1
mkdir -p /root/bench
cd /root/bench
mkfifo hold
exec 9<>hold

# start PERCENT COMMAND...
start() {
  number=$((count * $1 / 100))
  shift
  for i in $(seq "$number"); do
    setsid "$@" <&9 >/dev/null 2>&1 &
    started=$((started + 1))
  done
}

started=0
start 20 cat
start 20 bash -c 'read -r line; echo "$line"'
start 20 tail -f /etc/passwd
start 6 python3 -c 'import json, os, sys, threading; open(f"ready-{os.getpid()}", "w"); sys.stdin.read()'
for port in $(seq $((count * 3 / 100))); do
  setsid redis-server --port 0 --unixsocket "/root/bench/ready-$port.sock" --save '' <&9 >/dev/null 2>&1 &
  started=$((started + 1))
done
while [ "$started" -lt "$count" ]; do
  setsid sleep 86400 <&9 >/dev/null 2>&1 &
  started=$((started + 1))
done

slow=$((count * 6 / 100 + count * 3 / 100))
for second in $(seq 150); do
  [ "$(find . -name 'ready-*' | wc -l)" -lt "$slow" ] || break
  sleep 1
done
[ "$(find . -name 'ready-*' | wc -l)" -eq "$slow" ]
sync
