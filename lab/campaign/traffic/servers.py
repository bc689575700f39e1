"""Servers of the traffic campaign, which know nothing of panics.

servers.py log PORT                 a log in memory. `append NAME N PAYLOAD` puts an entry at its end and is answered with
                                    `NAME N POSITION CRC`; `dump` is answered with all entries, a line `NAME N CRC` each, and
                                    the line `end`
servers.py stream PORT              `stream NAME SEED`, then both ends send at the same time: the client the stream SEED, the
                                    server SEED + 1, until the client ends its side; then the server ends its own.
                                    `digest NAME` is answered with `GOT SHA256 SENT SHA256`, when both have ended
servers.py file SEED BYTES FILE     makes a file of a stream's first bytes

A stream is blocks of 65536 bytes: block k is what SHAKE128 makes of `SEED:k`.
"""

import asyncio
import hashlib
import socket
import sys
import threading
import time
import zlib

BLOCK = 65536
PACE = 0.05


def block(seed, k):
    return hashlib.shake_128(f"{seed}:{k}".encode()).digest(BLOCK)


def log(port):
    """One thread and an epoll, as Redis has."""
    entries = []

    async def serve(reader, writer):
        try:
            await answer(reader, writer)
        except ConnectionError:
            pass  # Its client is gone.
        writer.close()

    async def answer(reader, writer):
        while (line := await reader.readline()).endswith(b"\n"):
            words = line.decode().split()
            if words[0] == "dump":
                writer.write("".join(f"{name} {n} {crc}\n" for name, n, crc in entries).encode() + b"end\n")
            else:
                _, name, n, payload = words
                crc = zlib.crc32(payload.encode())
                entries.append((name, n, crc))
                writer.write(f"{name} {n} {len(entries)} {crc}\n".encode())
            await writer.drain()

    async def run():
        server = await asyncio.start_server(serve, "0.0.0.0", port, limit=2**20)
        await server.serve_forever()

    asyncio.run(run())


def stream(port):
    """Two threads for each connection, which wait in recv and in send."""
    digests = {}

    def send(connection, seed, is_over, sent):
        k = 0
        while not is_over.is_set():
            data = block(seed, k)
            connection.sendall(data)
            sent.update(data)
            k += 1
            time.sleep(PACE)
        connection.shutdown(socket.SHUT_WR)
        return k * BLOCK

    def serve(connection):
        try:
            answer(connection)
        except ConnectionError:
            pass  # Its client is gone.

    def answer(connection):
        line = connection.makefile("rb", buffering=0).readline()
        if not line:
            return
        command, name, *rest = line.decode().split()
        if command == "digest":
            while name not in digests:
                time.sleep(0.1)
            connection.sendall(f"{digests[name]}\n".encode())
            connection.close()
            return
        got, sent = hashlib.sha256(), hashlib.sha256()
        is_over = threading.Event()
        sent_bytes = []

        def send_all():
            try:
                sent_bytes.append(send(connection, int(rest[0]) + 1, is_over, sent))
            except ConnectionError:
                pass  # Its client is gone.

        sender = threading.Thread(target=send_all, daemon=True)
        sender.start()
        got_bytes = 0
        while data := connection.recv(BLOCK):
            got.update(data)
            got_bytes += len(data)
        is_over.set()
        sender.join()
        digests[name] = f"{got_bytes} {got.hexdigest()} {sent_bytes[0]} {sent.hexdigest()}"

    server = socket.create_server(("0.0.0.0", port))
    while True:
        connection, _ = server.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def file(seed, size, path):
    with open(path, "wb") as out:
        for k in range(0, (size + BLOCK - 1) // BLOCK):
            out.write(block(seed, k)[: size - k * BLOCK])


if __name__ == "__main__":
    if sys.argv[1] == "file":
        file(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        {"log": log, "stream": stream}[sys.argv[1]](int(sys.argv[2]))
