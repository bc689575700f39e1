"""Writes to Redis over TCP without a pause: `load.py RECORD DATABASE KEYS BATCH`.

Write number n, from 0 on, gives the key n modulo KEYS the value n. One batch is always under way. RECORD has how many
writes Redis has acknowledged; it is on the disk before the next batch goes out.
"""

import os
import socket
import sys

path = sys.argv[1]
database, keys, batch = map(int, sys.argv[2:])
OK = b"+OK\r\n"


def expect(count: int) -> None:
    """Reads so many replies, which all have to be OK."""
    replies = b""
    while len(replies) < count * len(OK):
        more = redis.recv(count * len(OK) - len(replies))
        if not more:
            sys.exit("Redis has ended the connection")
        replies += more
    if replies != OK * count:
        sys.exit(f"Redis answers {replies[:80]!r}")


def send(first: int) -> None:
    redis.sendall(b"".join(b"SET %d %d\r\n" % (n % keys, n) for n in range(first, first + batch)))


redis = socket.create_connection(("127.0.0.1", 6379))
redis.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
redis.sendall(b"CLIENT SETNAME load\r\nSELECT %d\r\n" % database)
expect(2)
record = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
acknowledged = 0
send(0)
while True:
    send(acknowledged + batch)
    expect(batch)
    acknowledged += batch
    os.pwrite(record, b"%015d\n" % acknowledged, 0)
    os.fdatasync(record)
