"""TCP connections that tell what has become of every byte.

connections.py serve ADDRESS PORT DIRECTORY        accepts connections; who connects says what is done with each
connections.py call ADDRESS PORT DIRECTORY NAME WORDS   connects, says WORDS (`KIND SEED BYTES`; nothing if KIND is
                                                   quiet), and does as in an exchange from its side
connections.py wait ADDRESS PORT DIRECTORY NAME    connects, and waits for a byte
connections.py connect ADDRESS PORT DIRECTORY NAME HOW   connects, HOW is `blocking` or `polling`; sends NAME, and
                                                   tells what the other end says
connections.py keyed ADDRESS PORT DIRECTORY NAME   the same as wait, with a key inside the kernel: it cannot be kept
connections.py pool ADDRESS PORT DIRECTORY NAME BEFORE   has a pool of connections, sends numbered requests through each, tells
                                                   what came of it, and the same once more when BEFORE is not there
connections.py knock DIRECTORY NAME                connects from a port of its choice to nobody who would answer, and
                                                   asks what came of it

The first line on a connection is `NAME KIND SEED BYTES`. Kinds:
  exchange   both ends send BYTES at the same time, at a moderate pace, then end their side and read to the end
  held       the same, but the server reads only when DIRECTORY/go is there, and sends without a pace
  told       the client sends, and ends its side at once; the server reads, and sends, when DIRECTORY/go is there
  tells      the server sends, and ends its side at once; the client sends when it has read all of it
  file       the server sends with sendfile(2), and ends its side when all is sent; the client sends nothing
  count      the server answers each line with that line and the number of lines so far

What came of it is in DIRECTORY/NAME, in one line; how far it is, in DIRECTORY/NAME.at.
"""

import ctypes
import errno
import os
import select
import socket
import sys
import threading
import time
from array import array

CHUNK = 16384
PACE = 0.04


def stream(seed, at, length):
    """The bytes of a stream that come at a place: words that each tell where they are."""
    first, last = at // 4, (at + length + 3) // 4
    words = array("I", [(k * 2654435761 + seed) & 0xFFFFFFFF for k in range(first, last)])
    skip = at - first * 4
    return words.tobytes()[skip : skip + length]


class Result:
    def __init__(self, directory, name):
        self.path = os.path.join(directory, name)

    def say(self, text):
        with open(self.path + ".new", "w") as file:
            file.write(text + "\n")
        os.rename(self.path + ".new", self.path)

    def progress(self, at):
        with open(self.path + ".at", "w") as file:
            file.write(f"{at}\n")


def send(connection, seed, total, pace):
    for at in range(0, total, CHUNK):
        connection.sendall(stream(seed, at, min(CHUNK, total - at)))
        time.sleep(pace)
    connection.shutdown(socket.SHUT_WR)


def receive(connection, seed, result):
    """Reads to the end. Returns how many bytes came, all of them right."""
    at = 0
    while True:
        got = connection.recv(CHUNK)
        if not got:
            return at
        if got != stream(seed, at, len(got)):
            raise ValueError(f"wrong bytes between {at} and {at + len(got)}")
        at += len(got)
        result.progress(at)


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.1)


def both(connection, seed, total, result, pace=PACE, begin=lambda: None):
    sender = threading.Thread(target=send, args=(connection, seed + 1, total, pace))
    sender.start()
    begin()
    got = receive(connection, seed, result)
    sender.join()
    return got


def send_file(connection, seed, total, path):
    """Sends a file that has the stream. The kernel moves the offset by what it says that it has sent."""
    with open(path, "wb") as file:
        file.write(stream(seed, 0, total))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sendfile.restype = ctypes.c_ssize_t
    offset = ctypes.c_int64(0)
    with open(path, "rb") as file:
        while offset.value < total:
            before = offset.value
            given = ctypes.byref(offset), ctypes.c_size_t(total - before)
            sent = libc.sendfile(connection.fileno(), file.fileno(), *given)
            if sent < 0:
                raise OSError(ctypes.get_errno(), "sendfile")
            if offset.value != before + sent:
                raise ValueError(f"{sent} bytes were sent from {before}, and the offset is {offset.value}")
    connection.shutdown(socket.SHUT_WR)
    return offset.value


def count(connection, lines):
    for number, line in enumerate(lines, 1):
        connection.sendall(f"{line.strip()} {number}\n".encode())


def head(connection):
    """The first line, and nothing behind it."""
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(1)
    return line.decode().split()


def serve_one(connection, directory):
    name, kind, seed, total = head(connection)
    seed, total = int(seed), int(total)
    result = Result(directory, name)
    result.progress(0)
    try:
        if kind == "count":
            return count(connection, connection.makefile("r"))
        if kind == "file":
            got = send_file(connection, seed + 1, total, result.path + ".data")
        elif kind == "exchange":
            got = both(connection, seed, total, result)
        elif kind == "tells":
            send(connection, seed + 1, total, 0)
            got = receive(connection, seed, result)
        else:
            go = os.path.join(directory, "go")
            if kind == "told":
                wait_for(go)
            got = both(connection, seed, total, result, 0, lambda: wait_for(go))
        result.say(f"right {got}")
    except (OSError, ValueError) as error:
        result.say(f"{type(error).__name__}: {error}")


def serve(address, port, directory):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.create_server((address, int(port)), family=family)
    Result(directory, f"serve-{port}").say(str(os.getpid()))
    while True:
        connection, _ = server.accept()
        threading.Thread(target=serve_one, args=(connection, directory)).start()


def call(address, port, directory, name, words):
    connection = socket.create_connection((address, int(port)))
    result = Result(directory, name)
    kind, seed, total = words.split()
    if kind != "quiet":
        connection.sendall(f"{name}-served {words}\n".encode())
    try:
        # The other way round: what it sends is what the server expects.
        sender = threading.Thread(target=send, args=(connection, int(seed), int(total), PACE))
        sender.start()
        got = receive(connection, int(seed) + 1, result)
        sender.join()
        result.say(f"right {got}")
    except (OSError, ValueError) as error:
        result.say(f"{type(error).__name__}: {error}")
    while True:
        time.sleep(60)


def wait(address, port, directory, name):
    connection = socket.create_connection((address, int(port)))
    result = Result(directory, name)
    result.progress(0)
    try:
        result.say(f"got {connection.recv(1)}")
    except OSError as error:
        result.say(type(error).__name__)
    while True:
        time.sleep(60)


def connect(address, port, directory, name, how):
    result = Result(directory, name)
    begin = os.path.join(directory, "connect-now")
    while not os.path.exists(begin):
        time.sleep(0.5)
    connection = socket.socket()
    try:
        if how == "blocking":
            connection.connect((address, int(port)))
        else:
            connection.setblocking(False)
            connection.connect_ex((address, int(port)))
            poll = select.poll()
            poll.register(connection, select.POLLOUT)
            poll.poll()
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            connection.setblocking(True)
        connection.sendall(f"{name}\n".encode())
        result.say(connection.makefile("r").readline().strip())
    except OSError as error:
        result.say(f"{type(error).__name__}: {error}")
    while True:
        time.sleep(60)


def pool(address, port, directory, name, before):
    CONNECTIONS, REQUESTS = 3, 50
    connections = [socket.create_connection((address, int(port))) for _ in range(CONNECTIONS)]
    ports = [connection.getsockname()[1] for connection in connections]
    lines = [connection.makefile("r") for connection in connections]
    for i, connection in enumerate(connections):
        connection.sendall(f"{name}-{i} count 0 0\n".encode())
    result = Result(directory, name)
    try:
        for asked in (0, REQUESTS):
            numbers = range(asked + 1, asked + REQUESTS + 1)
            for connection in connections:
                connection.sendall("".join(f"request{number}\n" for number in numbers).encode())
            for answers in lines:
                for number in numbers:
                    answer = answers.readline()
                    if answer != f"request{number} {number}\n":
                        raise ValueError(f"{answer!r} answers request {number}")
            now = [connection.getsockname()[1] for connection in connections]
            result.say(f"right {numbers[-1]} {'same' if now == ports else 'other'}")
            while os.path.exists(before):
                time.sleep(0.1)
    except (OSError, ValueError) as error:
        result.say(f"{type(error).__name__}: {error}")
    while True:
        time.sleep(60)


def outcome(step):
    try:
        return repr(step())
    except OSError as error:
        return errno.errorcode[error.errno]


def keyed(address, port, directory, name):
    TCP_FASTOPEN_KEY = 33
    connection = socket.create_connection((address, int(port)))
    connection.setsockopt(socket.SOL_TCP, TCP_FASTOPEN_KEY, bytes(range(16)))
    own = connection.getsockname()
    result = Result(directory, name)
    result.progress(0)
    steps = [lambda: connection.recv(1), lambda: connection.recv(1), lambda: connection.send(b"x")]
    seen = [outcome(step) for step in steps]
    result.say(" ".join([*seen, "same" if connection.getsockname() == own else "other"]))
    while True:
        time.sleep(60)


def knock(directory, name):
    """A queue that is full makes whoever connects wait."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    SYN_SENT = 2
    waiting = []
    while not waiting or waiting[-1].getsockopt(socket.SOL_TCP, socket.TCP_INFO, 1)[0] != SYN_SENT:
        waiting.append(socket.socket())
        # From a port that it has chosen: it cannot be begun anew from another one.
        waiting[-1].bind(("127.0.0.1", 0))
        waiting[-1].setblocking(False)
        # By default it would give up within two minutes, perhaps before the panic.
        waiting[-1].setsockopt(socket.SOL_TCP, socket.TCP_SYNCNT, 30)
        waiting[-1].connect_ex(listener.getsockname())
    poll = select.poll()
    poll.register(waiting[-1], select.POLLOUT)
    result = Result(directory, name)
    result.progress(0)
    poll.poll()
    error = waiting[-1].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    result.say(errno.errorcode.get(error, "connected"))
    while True:
        time.sleep(60)


if __name__ == "__main__":
    kinds = {"serve": serve, "call": call, "wait": wait, "connect": connect, "keyed": keyed, "pool": pool, "knock": knock}
    kinds[sys.argv[1]](*sys.argv[2:])
