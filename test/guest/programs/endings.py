"""Has children that nothing but SIGKILL ends, and says in the file that is its first argument what their parents hear of it.

Each child waits for a frozen file system, in the directory that is the second argument, and is called `victim`. One has the only
writing end of a pipe, the other end of a socket, and a lock. The parents of the others wait for SIGCHLD, and ignore it.
"""
import ctypes
import fcntl
import os
import signal
import socket
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)
out, frozen = sys.argv[1], sys.argv[2]


def say(line):
    fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, (line + "\n").encode())
    os.close(fd)


def child(step):
    pid = os.fork()
    if pid == 0:
        try:
            step()
        finally:
            os._exit(1)
    return pid


def victim(prepare=lambda: None):
    libc.prctl(15, b"victim", 0, 0, 0)
    prepare()
    os.unlink(f"{frozen}/nothing")


def show(status):
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"


def listening():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    pid = child(victim)
    say("listening")
    info = signal.sigwaitinfo([signal.SIGCHLD])
    right = "its own" if info.si_pid == pid else "another"
    say(f"told: {right}, code {info.si_code}, status {info.si_status}, user {info.si_uid}")
    say(f"waited: {show(os.waitpid(pid, 0)[1])}")


def ignoring():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    child(victim)
    say("ignoring")
    try:
        say(f"ignored: {os.wait()}")
    except ChildProcessError:
        say("ignored: no child")


reading, writing = os.pipe()
ours, theirs = socket.socketpair()
lock = os.open(out + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
locked, told = os.pipe()


def prepare():
    os.close(reading)
    ours.close()
    fcntl.lockf(lock, fcntl.LOCK_EX)
    theirs.send(b"last")
    os.write(told, b"x")


pid = child(lambda: victim(prepare))
os.close(writing)
theirs.close()
os.read(locked, 1)
os.close(locked)
os.close(told)
child(listening)
child(ignoring)


def lock_it():
    fcntl.lockf(lock, fcntl.LOCK_EX)
    say("lock: taken")


threads = [
    threading.Thread(target=step)
    for step in (
        lambda: say(f"pipe: {len(os.read(reading, 10))}"),
        lambda: say(f"socket: {ours.recv(10)}, {ours.recv(10)}"),
        lock_it,
        lambda: say(f"wait: {show(os.waitpid(pid, 0)[1])}"),
    )
]
for thread in threads:
    thread.start()
say("ready")
for thread in threads:
    thread.join()
say("done")
