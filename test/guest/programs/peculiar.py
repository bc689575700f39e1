"""Has one thing that cannot be brought back, named by the argument; prints `ready` and sleeps, or says why it cannot have it."""
import ctypes, mmap, os, select, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
what = sys.argv[1]


def must(result):
    if result < 0:
        print('impossible:', os.strerror(ctypes.get_errno()), flush=True)
        sys.exit(0)
    return result


def probe_of_a_tracer():
    """A uprobe on the entry point of sleep, then runs sleep."""
    tracing = '/sys/kernel/tracing'
    if not os.path.exists(tracing + '/uprobe_events'):
        os.system('mount -t tracefs nodev ' + tracing)
    header = open('/usr/bin/sleep', 'rb').read(64)
    open(tracing + '/uprobe_events', 'w').write('p:peculiar /usr/bin/sleep:0x%x' % struct.unpack_from('Q', header, 24))
    open(tracing + '/events/uprobes/peculiar/enable', 'w').write('1')
    print('ready', flush=True)
    os.execl('/usr/bin/sleep', 'sleep', '1000')


if what == 'key':
    must(libc.syscall(250, 1, 0))  # KEYCTL_JOIN_SESSION_KEYRING
    must(libc.syscall(248, b'user', b'peculiar', b'secret', 6, -3))
elif what == 'execute-only':
    page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_EXEC)
    with open('/proc/self/smaps') as smaps:
        # By a memory protection key, where the processor has them.
        if not any(line.startswith('ProtectionKey:') and int(line.split()[1]) > 0 for line in smaps):
            print('impossible: Function not implemented', flush=True)
            sys.exit(0)
elif what == 'uprobe':
    probe_of_a_tracer()
elif what == 'aio':
    context = ctypes.c_ulong()
    must(libc.syscall(206, 1, ctypes.byref(context)))  # io_setup
    # IOCB_CMD_POLL for POLLIN, which nothing will bring.
    request = ctypes.create_string_buffer(struct.pack('QIiHhIQQqQII', 0, 0, 0, 5, 0, os.pipe()[0], 1, 0, 0, 0, 0, 0))
    requests = (ctypes.c_void_p * 1)(ctypes.addressof(request))
    must(libc.syscall(209, context, ctypes.c_long(1), requests))  # io_submit
elif what == 'dnotify':
    import fcntl
    directory = os.open('/root', os.O_RDONLY)
    fcntl.fcntl(directory, fcntl.F_NOTIFY, fcntl.DN_CREATE | fcntl.DN_MULTISHOT)
elif what == 'pressure':
    pressure = open('/proc/pressure/memory', 'r+b', buffering=0)
    pressure.write(b'some 500000 2000000\0')
    watching = select.epoll()
    watching.register(pressure, select.EPOLLPRI)
elif what == 'reuseport':
    import socket
    program = ctypes.create_string_buffer(struct.pack('HBBI', 0x06, 0, 0, 0))
    shared = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    shared.setsockopt(1, 15, 1)
    shared.bind(('127.0.0.1', 5656))
    shared.setsockopt(1, 51, struct.pack('HxxxxxxQ', 1, ctypes.addressof(program)))  # SO_ATTACH_REUSEPORT_CBPF
elif what == 'discipline':
    import fcntl, pty, termios
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSETD, struct.pack('i', 27))  # N_NULL
elif what == 'mseal':
    libc.mmap.restype = ctypes.c_void_p
    area = libc.mmap(None, ctypes.c_size_t(4096), 1, 0x22, -1, ctypes.c_long(0))
    must(libc.syscall(462, ctypes.c_void_p(area), ctypes.c_size_t(4096), 0))
print('ready', flush=True)
time.sleep(1000)
