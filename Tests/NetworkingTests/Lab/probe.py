# SPDX-License-Identifier: Apache-2.0
"""Sends, answers and records packets in the network namespace that it was started in.

    probe.py NAME [tcp:PORT | udp:PORT]...

Requests come in as lines of JSON (numbers, strings, arrays and objects only) and are answered in
lines of JSON, each by a thread of its own. Only what Debian's python3-minimal has, which is why
the module `json` is not used. Ends with its standard input.
"""
import ast
import errno
import os
import select
import socket
import struct
import sys
import threading
import time

import frames

NAME = sys.argv[1]
output = threading.Lock()
handles = {}
counter = [0]


def text(value):
    if isinstance(value, dict):
        return "{" + ",".join(text(k) + ":" + text(v) for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(text, value)) + "]"
    if isinstance(value, int):
        return str(int(value))
    plain = lambda c: c if " " <= c <= "~" and c not in '"\\' else "\\u%04x" % ord(c)
    return '"' + "".join(map(plain, str(value))) + '"'


def keep(value):
    with output:
        counter[0] += 1
        handles[counter[0]] = value
        return counter[0]


def resolve(address, port):
    """Family and socket address of a numeric address, `fe80::1%eth0` included."""
    found = socket.getaddrinfo(address, port, 0, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)
    return found[0][0], found[0][4]


def opened(p, kind, protocol=0):
    family, address = resolve(p["to"], p.get("port", 0))
    s = socket.socket(family, kind, protocol)
    if p.get("from") or p.get("sport"):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        anything = "::" if family == socket.AF_INET6 else "0.0.0.0"
        s.bind(resolve(p.get("from") or anything, p.get("sport", 0))[1])
    return s, address


# Servers ---------------------------------------------------------------------------------------


def greeting(peer):
    return f"{NAME} {peer[0].partition('%')[0]}\n".encode()


def serve(ports):
    """Listens on `tcp:80`, `udp:53` and the like, on every address; answers from a thread."""
    listeners = []
    for port in ports:
        transport, _, number = port.partition(":")
        for family, anything in (socket.AF_INET, ""), (socket.AF_INET6, "::"):
            kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
            s = socket.socket(family, kind)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if transport == "udp":
                # IP_PKTINFO, IPV6_RECVPKTINFO: the answer must leave from the address asked.
                level = (socket.IPPROTO_IPV6, 49) if family == socket.AF_INET6 else (0, 8)
                s.setsockopt(*level, 1)
            s.bind((anything, int(number)))
            if transport == "tcp":
                s.listen(512)
            listeners.append(s)
    threading.Thread(target=answer_all, args=(listeners,), daemon=True).start()


def answer_all(listeners):
    connections = {}
    poll = select.poll()
    sockets = {s.fileno(): s for s in listeners}
    for number in sockets:
        poll.register(number, select.POLLIN)
    while True:
        for number, _ in poll.poll():
            s = sockets[number]
            try:
                if s in connections:
                    if s.recv(4096):
                        s.send(greeting(connections[s]))
                        continue
                    raise ConnectionResetError
                if s.type == socket.SOCK_DGRAM:
                    answer_datagram(s)
                    continue
                new, peer = s.accept()
                connections[new] = peer
                sockets[new.fileno()] = new
                poll.register(new, select.POLLIN)
                new.send(greeting(peer))
            except OSError:
                if s in connections:
                    poll.unregister(number)
                    del connections[s], sockets[number]
                    s.close()


def answer_datagram(s):
    _, extra, _, peer = s.recvmsg(4096, 256)
    sources = []
    for level, kind, data in extra:
        if level == 0 and kind == 8:
            # The interface must be 0: else it overrules the routes.
            sources.append((level, kind, struct.pack("=I4s4s", 0, data[4:8], bytes(4))))
        elif level == socket.IPPROTO_IPV6 and kind == 50:
            scope = data[16:20] if data[:2] == b"\xfe\x80" else bytes(4)
            sources.append((level, kind, data[:16] + scope))
    s.sendmsg([greeting(peer)], sources, 0, peer)


# Probes ----------------------------------------------------------------------------------------


def answered(data):
    if not data:
        return {"outcome": "reset"}
    words = data.decode().split() + ["", ""]
    return {"outcome": "answer", "by": words[0], "seen": words[1]}


def once_tcp(p, seconds):
    s, address = opened(p, socket.SOCK_STREAM)
    with s:
        s.settimeout(seconds)
        s.connect(address)
        return answered(s.recv(200))


def once_udp(p, seconds):
    s, address = opened(p, socket.SOCK_DGRAM)
    with s:
        s.connect(address)
        return answered(until_answer(s, seconds, lambda: s.send(b"?"), lambda data: data))


def once_ping(p, seconds):
    six = ":" in p["to"]
    s, address = opened(p, socket.SOCK_RAW, 58 if six else 1)
    with s:
        s.connect(address)
        token = os.urandom(10)
        message = struct.pack("!BBH", 128 if six else 8, 0, 0) + token[:2] + b"\0\1" + token
        if not six:
            message = message[:2] + struct.pack("!H", frames.checksum(message)) + message[4:]
        reply = bytes([129 if six else 0])

        def ours(data):
            data = data if six else data[(data[0] & 15) * 4 :]
            return data[:1] == reply and data[8:] == token

        until_answer(s, seconds, lambda: s.send(message), ours)
        return {"outcome": "echo"}


def once_dns(p, seconds):
    """Asks a server for a name; an address is an answer, and that there is none a refusal."""
    kind = 28 if p["name"].endswith("/6") else 1
    name = p["name"].removesuffix("/6")
    token = os.urandom(2)
    labels = b"".join(bytes([len(x)]) + x.encode() for x in name.split("."))
    query = token + struct.pack("!HHHHH", 0x100, 1, 0, 0, 0) + labels + b"\0"
    query += struct.pack("!HH", kind, 1)
    s, address = opened(p, socket.SOCK_DGRAM)
    with s:
        s.connect(address)
        data = until_answer(s, seconds, lambda: s.send(query), lambda d: d[:2] == token)
    length = 4 if kind == 1 else 16
    # The answer's address ends the message where it is alone.
    if data[3] & 15 or struct.unpack("!H", data[6:8])[0] != 1:
        return {"outcome": "refused"}
    family = socket.AF_INET if kind == 1 else socket.AF_INET6
    return {"outcome": "answer", "by": socket.inet_ntop(family, data[-length:]), "seen": ""}


def until_answer(s, seconds, send, accept):
    """Sends every 0.4 s until something acceptable comes back; the queue may drop one."""
    deadline = time.monotonic() + seconds
    again = 0
    while (now := time.monotonic()) < deadline:
        if now >= again:
            send()
            again = now + 0.4
        s.settimeout(max(0.01, min(again, deadline) - now))
        try:
            data = s.recv(4096)
            if accept(data):
                return data
        except TimeoutError:
            pass
    raise TimeoutError


def failure(error):
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return {"outcome": "timeout"}
    if error.errno == errno.ECONNREFUSED:
        return {"outcome": "refused"}
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return {"outcome": "reset"}
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES):
        return {"outcome": "unreachable"}
    return {"outcome": "error", "reason": error.strerror or str(error)}


def probe(p):
    """Tries once within `seconds`, or with `retry` again and again until they are over."""
    kinds = {"tcp": once_tcp, "udp": once_udp, "ping": once_ping, "dns": once_dns}
    seconds = p["milliseconds"] / 1000
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        try:
            return kinds[p["kind"]](p, max(0.01, min(left, 2) if p["retry"] else left))
        except OSError as error:
            result = failure(error)
        if not p["retry"] or time.monotonic() + 0.1 >= deadline:
            return result
        time.sleep(0.1)


def at_once(function, arguments):
    results = [None] * len(arguments)

    def run(index):
        try:
            results[index] = function(arguments[index])
        except Exception as error:  # an answer is due in any case
            results[index] = {"outcome": "error", "reason": repr(error)}

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(arguments))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# Frames ----------------------------------------------------------------------------------------


class Sniffer:
    """Notes which markers come in on an interface; frames that go out do not count."""

    def __init__(self, interface, markers):
        self.markers = {m: bytes.fromhex(m) for m in markers}
        self.seen = {}
        self.changed = threading.Condition()
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        # PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC: frames to others count as well.
        index = socket.if_nametoindex(interface)
        self.socket.setsockopt(263, 1, struct.pack("=IHH8s", index, 1, 0, bytes(8)))
        self.socket.bind((interface, 3))
        self.socket.settimeout(0.2)
        self.open = True
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while self.open:
            try:
                data, address = self.socket.recvfrom(4096)
            except TimeoutError:
                continue
            except OSError:
                break  # the interface is gone
            if address[2] == socket.PACKET_OUTGOING:
                continue
            for name, marker in self.markers.items():
                if marker in data:
                    with self.changed:
                        self.seen.setdefault(name, data.hex())
                        self.changed.notify_all()
        self.socket.close()

    def finish(self, expected, seconds):
        """Waits at most that long for the expected markers; tells all that were seen."""
        with self.changed:
            self.changed.wait_for(lambda: set(expected) <= set(self.seen), seconds)
            self.open = False
            return dict(self.seen)


def send(interface, described):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as s:
        s.bind((interface, 0))
        for frame in described:
            s.send(frames.build(frame))
    return {}


# Requests --------------------------------------------------------------------------------------


def open_connection(p):
    s, address = opened(p, socket.SOCK_STREAM)
    s.settimeout(p["milliseconds"] / 1000)
    try:
        s.connect(address)
        return {**answered(s.recv(200)), "handle": keep(s)}
    except OSError as error:
        s.close()
        return failure(error)


def say(p):
    s = handles[p["handle"]]
    s.settimeout(p["milliseconds"] / 1000)
    try:
        s.send(b"still there?\n")
        return answered(s.recv(200))
    except OSError as error:
        return failure(error)


def handle(r):
    op = r["op"]
    if op == "probe":
        return {"results": at_once(probe, r["probes"])}
    if op == "serve":
        return serve(r["ports"]) or {}
    if op == "send":
        return send(r["interface"], r["frames"])
    if op == "sniff":
        return {"handle": keep(Sniffer(r["interface"], r["markers"]))}
    if op == "sniffed":
        found = handles.pop(r["handle"]).finish(r["expected"], r["milliseconds"] / 1000)
        return {"seen": found}
    if op == "open":
        return open_connection(r)
    if op == "say":
        return say(r)
    if op == "close":
        handles.pop(r["handle"]).close()
        return {}
    raise ValueError(op)


def answer(request):
    try:
        result = handle(request)
    except Exception as error:  # the caller waits for an answer in any case
        result = {"failed": f"{type(error).__name__}: {error}"}
    with output:
        print(text({"id": request["id"], **result}), flush=True)


def main():
    serve(sys.argv[2:])
    with output:
        print(text({"id": 0}), flush=True)
    for line in sys.stdin:
        request = ast.literal_eval(line)
        threading.Thread(target=answer, args=(request,), daemon=True).start()
    os._exit(0)


main()
