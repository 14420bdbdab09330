# SPDX-License-Identifier: Apache-2.0
"""Builds raw Ethernet frames, forged ones too. Only what Debian's python3-minimal has."""
import socket
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ip(text):
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return socket.inet_pton(family, text)


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ether(f, kind, payload):
    """A frame from `source` to `destination`, padded to what Ethernet asks for."""
    header = mac(f.get("destination", BROADCAST)) + mac(f["source"])
    if "vlan" in f:
        header += struct.pack("!HH", 0x8100, f["vlan"])
    return (header + struct.pack("!H", kind) + payload).ljust(60, b"\0")


def pseudo(source, target, protocol, length):
    if len(source) == 4:
        return source + target + struct.pack("!BBH", 0, protocol, length)
    return source + target + struct.pack("!IHBB", length, 0, 0, protocol)


def packet(f, protocol, payload, hops=64):
    """An IPv4 or IPv6 packet in a frame, after the addresses' family."""
    source, target = ip(f["from"]), ip(f["to"])
    if len(source) == 16:
        header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops)
        return ether(f, 0x86DD, header + source + target + payload)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, hops, protocol, 0)
    header += source + target
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return ether(f, 0x0800, header + payload)


def udp(f, payload=None):
    payload = f["marker"].encode() if payload is None else payload
    length = 8 + len(payload)
    header = struct.pack("!HHH", f["sport"], f["dport"], length)
    over = pseudo(ip(f["from"]), ip(f["to"]), 17, length) + header + b"\0\0" + payload
    return packet(f, 17, header + struct.pack("!H", checksum(over) or 0xFFFF) + payload)


def tcp(f):
    """A SYN that carries its marker, or a segment of an unknown connection."""
    payload = f["marker"].encode()
    header = struct.pack("!HHIIBBH", f["sport"], f["dport"], 1, 0, 5 << 4, f["flags"], 8192)
    over = pseudo(ip(f["from"]), ip(f["to"]), 6, 20 + len(payload))
    sum_ = checksum(over + header + b"\0\0\0\0" + payload)
    return packet(f, 6, header + struct.pack("!HH", sum_, 0) + payload)


def icmp4(f):
    body = struct.pack("!HH", 1, 1) + f["marker"].encode()
    head = struct.pack("!BB", f.get("type", 8), 0)
    return packet(f, 1, head + struct.pack("!H", checksum(head + b"\0\0" + body)) + body)


def icmp6(f, kind, body, hops=255):
    head = struct.pack("!BB", kind, 0)
    over = pseudo(ip(f["from"]), ip(f["to"]), 58, 4 + len(body)) + head + b"\0\0" + body
    return packet(f, 58, head + struct.pack("!H", checksum(over)) + body, hops)


def ping(f):
    if ":" not in f["from"]:
        return icmp4(f)
    return icmp6(f, 128, struct.pack("!HH", 1, 1) + f["marker"].encode(), 64)


def option(f):
    """A neighbour discovery option of an experimental kind, which receivers skip."""
    return struct.pack("!BB", 253, 2) + f["marker"].encode().ljust(14, b"\0")


def link_option(kind, address):
    return struct.pack("!BB", kind, 1) + mac(address)


def solicitation(f):
    source = link_option(1, f["source"]) if f["from"] != "::" else b""
    return icmp6(f, 135, bytes(4) + ip(f["target"]) + source + option(f))


def advertisement(f):
    flags = struct.pack("!I", 0x20000000)  # override
    body = flags + ip(f["target"]) + link_option(2, f.get("claimed", f["source"]))
    return icmp6(f, 136, body + option(f))


def router_advertisement(f):
    body = struct.pack("!BBHII", 64, 0, 1800, 0, 0)
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + ip(f["prefix"])
    return icmp6(f, 134, body + prefix + link_option(1, f["source"]) + option(f))


def router_solicitation(f):
    return icmp6(f, 133, bytes(4) + option(f))


def redirect(f):
    return icmp6(f, 137, bytes(4) + ip(f["target"]) + ip(f["about"]) + option(f))


def arp(f):
    """A request or a reply. The marker lies in the padding, which bridges leave alone."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, f["operation"])
    body += mac(f["sender"]) + ip(f["from"]) + mac(f["target"]) + ip(f["to"])
    return ether(f, 0x0806, body + f["marker"].encode())


def dhcp(f):
    """A discover (sent by a client) or an offer (sent by a server), by `message`."""
    reply = f["message"] in (2, 5)
    head = struct.pack("!BBBB", 2 if reply else 1, 1, 6, 0) + f["marker"].encode()[-4:]
    head += struct.pack("!HH", 0, 0x8000) + bytes(4) + ip(f.get("offered", "0.0.0.0"))
    head += bytes(8) + mac(f["client"]).ljust(16, b"\0") + bytes(192)
    options = bytes([0x63, 0x82, 0x53, 0x63, 53, 1, f["message"]])
    if reply:
        options += bytes([54, 4]) + ip(f["from"]) + bytes([51, 4, 0, 0, 14, 16])
    marker = f["marker"].encode()
    return udp(f, head + options + bytes([224, len(marker)]) + marker + b"\xff")


def dhcpv6(f):
    marker = f["marker"].encode()
    head = struct.pack("!I", f["message"] << 24 | int.from_bytes(marker[-3:], "big"))
    server = struct.pack("!HHHH", 2, 10, 3, 1) + mac(f["source"])
    return udp(f, head + server + struct.pack("!HH", 65001, len(marker)) + marker)


def bpdu(f):
    """A spanning tree configuration message: 802.3 with LLC, so a length for a type."""
    root = bytes(2) + mac(f["source"])
    body = struct.pack("!BBBHBB", 0x42, 0x42, 3, 0, 0, 0) + b"\0" + root + bytes(4) + root
    body += struct.pack("!HHHHH", 0x8001, 0, 20 * 256, 2 * 256, 15 * 256)
    return ether({**f, "destination": "01:80:c2:00:00:00"}, len(body), body + f["marker"].encode())


def other(f):
    return ether(f, f["type"], f["marker"].encode())


def hexadecimal(f):
    return bytes.fromhex(f["hex"])


def build(f):
    kinds = {
        "udp": udp, "tcp": tcp, "ping": ping, "arp": arp, "solicitation": solicitation,
        "advertisement": advertisement, "router advertisement": router_advertisement,
        "router solicitation": router_solicitation, "redirect": redirect, "dhcp": dhcp,
        "dhcpv6": dhcpv6, "bpdu": bpdu, "other": other, "hex": hexadecimal,
    }  # fmt: skip
    return kinds[f["kind"]](f)
