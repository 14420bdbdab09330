// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Synchronization

/// A guest's stand-in: a namespace whose `eth0` is the other end of a host interface.
struct Guest: Sendable {
    let name: String
    /// The host's end, as Martlet would name the tap.
    let tap: String
    let mac: String
    /// Without the length of its prefix.
    let ipv4: String
    let ipv6: String?
}

extension Lab {
    /// Who is reached by what.
    enum Address {
        /// The host's own, on its uplink.
        static let host = "203.0.113.2"
        static let host6 = "2001:db8:1::2"
        /// The host's own, on the LAN's bridge.
        static let hostLAN = "192.168.50.2"
        static let hostLAN6 = "2001:db8:50::2"
        /// The host's own, in the tunnel.
        static let hostVPN = "10.99.0.1"
        static let hostVPN6 = "fd99:99::1"
        /// The next hop of the host's default route.
        static let wan = "203.0.113.1"
        static let wan6 = "2001:db8:1::1"
        /// Servers on the internet, all of them `wan`.
        static let server = "198.51.100.7"
        static let server6 = "2001:db8:99::7"
        static let resolver = "9.9.9.9"
        /// Private, shared and link-local ranges that the internet side would carry.
        static let `private` = [
            "192.168.77.1", "172.16.0.1", "10.200.0.1", "100.64.0.1", "169.254.169.254",
        ]
        static let private6 = "fd99::1"
        static let lan = "192.168.50.10"
        static let lan6 = "2001:db8:50::10"
        static let vpn = "10.99.0.2"
        static let vpn6 = "fd99:99::2"
    }

    /// Makes the stand-in of a guest.
    ///
    /// Addresses are with their prefix, `10.1.0.2/24`; `ports` is what it serves. The host's end of
    /// its wire, named `tap` (at most 15 characters), exists, down and attached to nothing: the rest
    /// is Martlet's job. `wan` gets routes to its subnets and `vpn` has one to all of 10.0.0.0/8 and
    /// fd00::/8, so that addresses which no NAT hides are answered too. A name that exists gets a
    /// further interface, `eth1` and so on.
    @discardableResult
    func addGuest(
        _ name: String, tap: String, mac: String, ipv4: String, gateway: String? = nil,
        ipv6: String? = nil, gateway6: String? = nil, ports: [String] = Lab.ports
    ) async throws -> Guest {
        var interface = "eth0"
        if (try? agent(name)) == nil {
            try await addNamespaces([(name, ports)])
        } else {
            let output = try await sh(name, "ls -d /sys/class/net/eth* | wc -l")
            interface = "eth\(output.text.dropLast())"
        }
        var lines = """
            link add \(interface) address \(mac) type veth peer name \(tap) netns {host}
            link set \(interface) up
            address add \(ipv4) dev \(interface)

            """
        if let gateway { lines += "route add default via \(gateway) dev \(interface) onlink\n" }
        if let ipv6 { lines += "address add \(ipv6) dev \(interface) nodad\n" }
        if let gateway6 {
            lines += "route add ::/0 via \(gateway6) dev \(interface) onlink\n"
        }
        try await ip(name, lines)
        var routes = "route replace \(try Lab.subnet(ipv4)) via \(Address.host)\n"
        if let ipv6 { routes += "route replace \(try Lab.subnet(ipv6)) via \(Address.host6)\n" }
        try await ip("wan", routes)
        return Guest(
            name: name, tap: tap, mac: mac, ipv4: Lab.address(ipv4), ipv6: ipv6.map(Lab.address))
    }

    /// Waits until the kernel has taken note of every carrier: it does so when it has time, up to a
    /// second later, and until then what is sent is dropped.
    func linksSettle(in name: String) async throws {
        try await sh(
            name,
            """
            for try in $(seq 100); do
                ip -o link | grep LOWER_UP | grep -q 'state DOWN' || exit 0
                sleep 0.05
            done
            """)
    }

    /// Makes everything but the guests.
    func build(vpn: Bool) async throws {
        let peers = ["wan", "lan"] + (vpn ? ["vpn"] : [])
        try await addNamespaces([("host", [])] + peers.map { ($0, Lab.ports) })
        // Every wire is made from the host's side or from wan's, and never seen elsewhere.
        try await ip("host", Self.hostLines)
        try await sysctl("wan", [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])
        try await ip("wan", Self.wanLines)
        try await ip("lan", Self.lanLines)
        guard vpn else { return }
        try await ip("wan", Self.vpnUnderlay)
        try await ip(
            "vpn",
            "address add 198.18.0.2/24 dev wan0\nlink set wan0 up\n"
                + "route add default via 198.18.0.1\n")
        try await buildTunnel()
    }

    private static let hostLines = """
        link add uplink0 type veth peer name host0 netns {wan}
        address add \(Address.host)/24 dev uplink0
        address add \(Address.host6)/64 dev uplink0 nodad
        link set uplink0 up
        link add br0 address 02:00:00:00:50:02 type bridge forward_delay 0 stp_state 0 mcast_snooping 0
        link add lan0 type veth peer name eth0 netns {lan}
        link set lan0 addrgenmode none
        link set lan0 master br0 up
        address add \(Address.hostLAN)/24 dev br0
        address add \(Address.hostLAN6)/64 dev br0 nodad
        link set br0 up
        route add default via \(Address.wan)
        route add ::/0 via \(Address.wan6) dev uplink0 onlink

        """

    private static var wanLines: String {
        let others = [Address.server, Address.resolver] + Address.private
        return """
            address add \(Address.wan)/24 dev host0
            address add \(Address.wan6)/64 dev host0 nodad
            link set host0 up
            address add \(Address.server6)/128 dev lo nodad
            address add \(Address.private6)/128 dev lo nodad
            route add 192.168.50.0/24 via \(Address.host)
            route add 2001:db8:50::/64 via \(Address.host6) dev host0 onlink

            """ + others.map { "address add \($0)/32 dev lo\n" }.joined()
    }

    /// Its default route is the host: a neighbour that wants in only has to set one.
    private static let lanLines = """
        link set eth0 address 02:00:00:00:50:10
        address add \(Address.lan)/24 dev eth0
        address add \(Address.lan6)/64 dev eth0 nodad
        link set eth0 up
        route add default via \(Address.hostLAN)
        route add ::/0 via \(Address.hostLAN6) dev eth0 onlink

        """

    private static let vpnUnderlay = """
        link add vpn0 type veth peer name wan0 netns {vpn}
        address add 198.18.0.1/24 dev vpn0
        link set vpn0 up

        """

    // MARK: The tunnel

    /// A real WireGuard tunnel between `host` and `vpn`, in user space.
    private func buildTunnel() async throws {
        let host = try await Self.keys()
        let peer = try await Self.keys()
        // The peer first, so that the host's first message is not lost: the next takes 5 seconds.
        try await startTunnel(
            "vpn", key: peer.secret, peer: host.public, endpoint: Address.host,
            allowed: "10.0.0.0/8, fd00::/8",
            "address add \(Address.vpn)/24 dev wg0\naddress add \(Address.vpn6)/64 dev wg0 nodad\n")
        try await startTunnel(
            "host", key: host.secret, peer: peer.public, endpoint: "198.18.0.2",
            allowed: "\(Address.vpn)/32, \(Address.vpn6)/128",
            "address add \(Address.hostVPN)/24 dev wg0\n"
                + "address add \(Address.hostVPN6)/64 dev wg0 nodad\n")
        try await ip(
            "vpn",
            "link set wg0 up\nroute add 10.0.0.0/8 dev wg0\nroute add fd00::/8 dev wg0\n")
        try await ip("host", "link set wg0 up\n")
        // A first message that finds nobody is repeated after 5 seconds only, and the program binds
        // its sockets some time after its interface is up.
        for name in ["host", "vpn"] {
            try await inside(name) {
                for _ in 0..<1500 where !(try Self.listens(port: "CA6C")) { usleep(10_000) }
            }
        }
        let made = try await probe(
            from: "vpn", [.ping(Address.hostVPN)], milliseconds: Lab.patience, retry: true)
        guard made == [.echo] else { throw LabError("the tunnel does not work: \(made)") }
    }

    /// Whether something in the thread's namespace is bound to a UDP port, given in hexadecimal.
    private static func listens(port: String) throws(SystemError) -> Bool {
        for file in ["udp", "udp6"] {
            let table = try Files.readText("/proc/thread-self/net/\(file)")
            if !table.contains(":\(port) ") { return false }
        }
        return true
    }

    /// Starts an end of a tunnel, `wg0`, which listens on 51820 as its peer does; it is not up yet
    /// unless the lines say so.
    func startTunnel(
        _ name: String, key: String, peer: String, endpoint: String, allowed: String,
        _ addresses: String
    ) async throws {
        let configuration = """
            [Interface]
            PrivateKey = \(key)
            ListenPort = 51820
            [Peer]
            PublicKey = \(peer)
            AllowedIPs = \(allowed)
            Endpoint = \(endpoint):51820

            """
        // wg and wireguard-go meet at a socket of the interface's name, so each tunnel needs a /run
        // of its own: `ip netns exec` has made a mount namespace for this shell already.
        let script = """
            mount -t tmpfs lab /run && mkdir /run/wireguard || exit
            {
                for i in $(seq 1500); do
                    wg show wg0 >/dev/null 2>&1 && break
                    sleep 0.02
                done
                printf %s "$CONFIGURATION" | wg setconf wg0 /dev/stdin && echo ready
            } &
            exec wireguard-go -f wg0 >/dev/null 2>&1
            """
        var program = Program(
            "/sbin/ip", ["netns", "exec", namespace(name), "/bin/sh", "-c", script])
        program.environment =
            Program.ownEnvironment() + ["CONFIGURATION=\(configuration)", "LOG_LEVEL=error"]
        let output = try Pipe().split()
        defer { close(output.reader) }
        program.descriptors = [1: output.writer, 2: 2]
        let started: Result<Child, any Error>
        do { started = .success(try await spawnBound(program)) } catch { started = .failure(error) }
        close(output.writer)
        let child = try started.get()
        state.withLock { $0.children.append(child) }
        let reader = output.reader
        guard try await blocking({ try Linux.read(reader, 16) }).isEmpty == false else {
            throw LabError("\(name): wireguard-go did not start")
        }
        try await ip(name, addresses)
    }

    /// A pair of keys of WireGuard.
    static func keys() async throws -> (secret: String, public: String) {
        let secret = try await Program("/usr/bin/wg", ["genkey"]).capture()
        let key = try await Program("/usr/bin/wg", ["pubkey"]).capture(input: secret.standardOutput)
        return (String(secret.text.dropLast()), String(key.text.dropLast()))
    }

    // MARK: Addresses

    private static func address(_ text: String) -> String {
        String(text.prefix { $0 != "/" })
    }

    /// `10.1.0.2/24` is in `10.1.0.0/24`.
    private static func subnet(_ text: String) throws -> String {
        let parts = text.split(separator: "/")
        let family = text.contains(":") ? AF_INET6 : AF_INET
        var bytes = [UInt8](repeating: 0, count: family == AF_INET ? 4 : 16)
        guard parts.count == 2, let length = Int(parts[1]), length <= bytes.count * 8,
            inet_pton(family, String(parts[0]), &bytes) == 1
        else { throw LabError("'\(text)' is no address with prefix") }
        for bit in length..<(bytes.count * 8) { bytes[bit / 8] &= ~(0x80 >> (bit % 8)) }
        var out = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        inet_ntop(family, bytes, &out, socklen_t(out.count))
        let name = out.prefix { $0 != 0 }.map(UInt8.init(bitPattern:))
        return String(decoding: name, as: UTF8.self) + "/\(length)"
    }
}
