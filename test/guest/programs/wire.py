"""What passes the network interfaces of a booting system, by the guest's own TCP port.

wire.py watch FILE PORT...     counts in FILE, a line `PORT segments=N resets=N` each: those that came, and resets that went
wire.py wait FILE PORT...      ends when two segments or more have come for each port, wherever they were left
"""

import os
import socket
import sys
import time

RESET = 4


def ports(packet):
    """Source and destination port, and flags, of a TCP segment over IPv4; None for anything else."""
    if packet[12:14] != b"\x08\x00" or packet[23] != socket.IPPROTO_TCP:
        return None
    tcp = packet[14 + 4 * (packet[14] & 15) :]
    return int.from_bytes(tcp[0:2], "big"), int.from_bytes(tcp[2:4], "big"), tcp[13]


def watch(file, wanted):
    counts = {port: [0, 0] for port in wanted}
    # ETH_P_ALL
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    while True:
        packet, address = wire.recvfrom(65535)
        found = ports(packet) if address[0] != "lo" else None
        if found is None:
            continue
        source, destination, flags = found
        if address[2] == socket.PACKET_OUTGOING and source in counts and flags & RESET:
            counts[source][1] += 1
        elif address[2] != socket.PACKET_OUTGOING and destination in counts:
            counts[destination][0] += 1
        with open(file + ".new", "w") as out:
            for port, (segments, resets) in counts.items():
                out.write(f"{port} segments={segments} resets={resets}\n")
        os.rename(file + ".new", file)


def wait(file, wanted):
    def came(port):
        lines = open(file).read().split("\n") if os.path.exists(file) else []
        return any(line.startswith(f"{port} ") and int(line.split("=")[1].split()[0]) >= 2 for line in lines)

    while not all(came(port) for port in wanted):
        time.sleep(0.2)


if __name__ == "__main__":
    {"watch": watch, "wait": wait}[sys.argv[1]](sys.argv[2], [int(port) for port in sys.argv[3:]])
