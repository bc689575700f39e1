# A service that looks at its sandbox from inside whenever it is asked to (SIGUSR1).
# sandboxed.py OUTPUT: says "ready" there, then what it finds, a line for each thing.
import os
import signal
import socket
import sys

output = sys.argv[1]
token = os.urandom(8).hex()
# Others may have files in the same directories.
suffix = os.environ.get("SUFFIX", "")


def write(lines):
    with open(output + ".part", "w") as file:
        file.write("\n".join(lines) + "\n")
    os.rename(output + ".part", output)


# One file stays open, another one does not; both in the two private directories.
opened = {}
for place in ("/tmp", "/var/tmp"):
    opened[place] = open(place + "/opened" + suffix, "w+")
    opened[place].write(token)
    opened[place].flush()
    with open(place + "/closed" + suffix, "w") as closed:
        closed.write(token)
# In the directory that a unit has for its sockets.
runtime = os.environ.get("RUNTIME_DIRECTORY")
listener = socket.socket(socket.AF_UNIX)
if runtime is not None:
    listening = runtime + "/socket" + suffix
    # On a disk it outlives its service.
    if os.path.exists(listening):
        os.unlink(listening)
    # By another name, or through a link.
    bound_as = os.environ.get("BOUND_AS", listening)
    listener.bind(bound_as)
    os.rename(bound_as, listening)
    os.chmod(listening, 0o640)
    listener.listen(7)
    if os.environ.get("UNLINKED") is not None:
        os.unlink(listening)
# Where a unit wants it.
place_of_deleted = os.environ.get("DELETED")
if place_of_deleted is not None:
    deleted = open(place_of_deleted + "/deleted" + suffix, "w+")
    deleted.write(token)
    deleted.flush()
    # Opened once more, at another place in it.
    again = os.open(place_of_deleted + "/deleted" + suffix, os.O_RDONLY)
    os.lseek(again, 2, os.SEEK_SET)
    os.unlink(place_of_deleted + "/deleted" + suffix)


def attempt(step):
    try:
        return step()
    except OSError as error:
        return error.strerror


def content(path):
    with open(path) as file:
        return file.read()


def held(file):
    file.seek(0)
    return file.read()


def create(path):
    open(path, "x").close()
    os.unlink(path)
    return "created"


def shown(path):
    stats = os.stat(path)
    return f"{oct(stats.st_mode)} {stats.st_uid} {stats.st_gid}"


def connect():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listening)
        listener.accept()[0].close()
    return "yes"


def make_namespace():
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        os._exit(0 if libc.unshare(0x04000000) == 0 else ctypes.get_errno())
    error = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "made" if error == 0 else os.strerror(error)


def make_executable():
    import mmap

    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    return "mapped"


def look(*_):
    found = {"token": token, "pid": os.getpid()}
    for place, file in opened.items():
        found["opened in " + place] = held(file)
        found["by its name in " + place] = attempt(lambda: content(place + "/opened" + suffix))
        found["closed in " + place] = attempt(lambda: content(place + "/closed" + suffix))
    if place_of_deleted is not None:
        found["deleted"] = held(deleted)
        found["at byte 2"] = os.read(again, 4).decode()
        os.lseek(again, 2, os.SEEK_SET)
        found["its name"] = os.readlink(f"/proc/self/fd/{again}")
    if runtime is not None:
        found["name"] = listener.getsockname()
        found["in the runtime directory"] = attempt(lambda: ", ".join(map(shown, (runtime, listening))))
        found["connected"] = attempt(connect)
    found["usr"] = attempt(lambda: create("/usr/sandboxed"))
    found["home"] = attempt(lambda: ",".join(os.listdir("/home")))
    found["devices"] = attempt(lambda: str(os.path.exists("/dev/vda")))
    found["queues"] = attempt(lambda: ",".join(os.listdir("/dev/mqueue")))
    found["namespace"] = attempt(make_namespace)
    found["executable"] = attempt(make_executable)
    for line in content("/proc/self/status").split("\n"):
        if line.startswith(("NoNewPrivs", "Seccomp", "CapBnd")):
            found[line.split(":")[0]] = line.split(":")[1].strip()
    write(f"{name}: {value}" for name, value in found.items())
    print("looked", flush=True)


signal.signal(signal.SIGUSR1, look)
write(["ready"])
print("ready", flush=True)
while True:
    signal.pause()
