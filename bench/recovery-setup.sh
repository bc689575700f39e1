# Makes redis, a shell program and the probe services of the guest, starts and protects them.
set -eu
mkdir -p /root/bench
cd /root/bench
mkfifo ask answer
cat >echo.sh <<'END'
exec 3<>/root/bench/ask 4<>/root/bench/answer
while read -r word <&3; do echo "$word" >&4; done
END

# service NAME COMMAND
service() {
  cat >"/etc/systemd/system/bench-$1.service" <<END
[Service]
ExecStart=$2
[Install]
WantedBy=multi-user.target
END
}
systemctl disable --quiet --now redis-server
redis='/usr/bin/redis-server --port 0 --unixsocket /root/bench/redis.sock --dir /root/bench'
service redis "$redis --save '' --enable-debug-command yes"
service shell '/bin/sh /root/bench/echo.sh'
service probe '/usr/bin/python3 /root/bench/recovery-probe.py'
systemctl daemon-reload
systemctl enable --quiet --now bench-redis bench-shell bench-probe
otherworld protect --unit bench-redis --unit bench-shell --unit bench-probe
