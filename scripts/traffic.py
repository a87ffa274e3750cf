"""The few clients and servers that scripts/stories cannot find ready-made. Each is one function; the kernel's own stack does the talking.

    traffic.py NAME ADDRESS PORT [SIZE]
"""

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import time

FOREVER = 600


def connect(address, port):
    return socket.create_connection((address, port), timeout=3)


def open_(address, port):
    """Connects, and stays connected without a word."""
    with connect(address, port):
        time.sleep(FOREVER)


def silent(address, port):
    """Sends SYNs that nobody answers."""
    try:
        connect(address, port)
    except OSError:
        pass


def abort(address, port):
    """Asks for a page and resets the connection when its first octets come."""
    peer = connect(address, port)
    peer.sendall(b"GET /large HTTP/1.0\r\n\r\n")
    peer.recv(1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def half_close(address, port):
    """Says that it has finished before it has asked, and reads what comes until the end."""
    with connect(address, port) as peer:
        peer.sendall(b"GET /small HTTP/1.0\r\n\r\n")
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(4096):
            pass
        time.sleep(0.5)


def echo(port):
    """Answers every datagram with itself."""
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    while True:
        data, peer = server.recvfrom(65535)
        server.sendto(data, peer)


def datagram_socket(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    client = socket.socket(family, socket.SOCK_DGRAM)
    client.settimeout(1)
    return client


def datagram(address, port, size):
    """Sends one datagram and waits a second for its echo."""
    client = datagram_socket(address)
    client.sendto(b"k" * size, (address, port))
    try:
        client.recv(65535)
    except TimeoutError:
        pass


def stream(address, port):
    """An echoed datagram every half second for three seconds: longer than the two that make a stream."""
    client = datagram_socket(address)
    for _ in range(7):
        client.sendto(b"tick", (address, port))
        client.recv(16)
        time.sleep(0.5)


def lull(address, port):
    """Talks, is silent for longer than a short timeout allows, and talks again on the same connection."""
    with connect(address, port) as peer:
        for pause in (5, 0.5):
            peer.sendall(b"GET /small HTTP/1.1\r\nHost: server\r\n\r\n")
            peer.recv(4096)
            time.sleep(pause)
        time.sleep(FOREVER)


def cable(namespace):
    """A link without a link layer: two TUN devices, `eth0` here and `lan` in `namespace`, and what one sends the other receives."""
    ends = []
    for name in ("eth0", "lan"):
        end = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        ends.append(end)
    subprocess.run(["ip", "link", "set", "lan", "netns", namespace], check=True)
    while True:
        for end in select.select(ends, [], [])[0]:
            try:
                os.write(ends[1 - ends.index(end)], os.read(end, 65535))
            except OSError:
                # The other end is not up yet: a cable does not care.
                pass


TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000

PROGRAMS = {"cable": cable, "lull": lull, "open": open_, "silent": silent, "abort": abort, "half-close": half_close, "echo": echo, "datagram": datagram, "stream": stream}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    PROGRAMS[name](*(int(word) if word.isdigit() else word for word in arguments))
