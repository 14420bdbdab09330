// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Networking
import Support
import Testing

@Suite(.timeLimit(.minutes(20))) struct InterfaceAddressTests {
    /// The errno of binding a UDP socket to an IPv6 address, 0 if that worked.
    private static func bindError(_ address: IPv6) -> Int32 {
        let fd = socket(AF_INET6, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(fd) }
        var to = sockaddr_in6()
        to.sin6_family = sa_family_t(AF_INET6)
        withUnsafeMutableBytes(of: &to.sin6_addr) { bytes in
            bytes.storeBytes(of: address.high.bigEndian, toByteOffset: 0, as: UInt64.self)
            bytes.storeBytes(of: address.low.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
        let result = withUnsafePointer(to: &to) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(fd, $0, socklen_t(MemoryLayout<sockaddr_in6>.size))
            }
        }
        return result == 0 ? 0 : errno
    }

    private static func bridge(_ routes: borrowing RouteSocket) throws -> Int32 {
        let index = try routes.addBridge(
            "br-a", mac: MACAddress(bits: 0x0200_00FF_0101), alias: "x", group: 1)
        try routes.set(index, LinkChanges(isUp: true))
        return index
    }

    @Test func anIPv6AddressCanBeUsedAtOnce() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let index = try Self.bridge(routes)
            let address = try #require(IPv6("fd00:6d76::1"))
            #expect(Self.bindError(address) == EADDRNOTAVAIL)
            try routes.addAddress(index, .v6(address), prefix: 64)
            #expect(Self.bindError(address) == 0)
        }
    }

    @Test func addingAndRemovingTwiceIsNoError() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let index = try Self.bridge(routes)
            for text in ["10.9.0.1", "fd00:6d76::1"] {
                let address = try #require(IPAddress(text))
                let prefix = text.contains(":") ? 64 : 24
                let entry = InterfaceAddress(index: index, address: address, prefix: prefix)
                for _ in 0..<2 { try routes.addAddress(index, address, prefix: prefix) }
                #expect(try routes.addresses().filter { $0 == entry }.count == 1)
                for _ in 0..<2 { try routes.removeAddress(index, address, prefix: prefix) }
                #expect(try !routes.addresses().contains(entry))
            }
        }
    }

    @Test func anotherPrefixOfTheSameAddressIsNotTakenForDone() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let index = try Self.bridge(routes)
            let address = try #require(IPAddress("fd00:6d76::1"))
            try routes.addAddress(index, address, prefix: 64)
            #expect { try routes.addAddress(index, address, prefix: 48) } throws: {
                ($0 as? SystemError)?.isExisting == true
            }
        }
    }

    @Test func connectedSubnetsAreThoseOnALink() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            #expect(try routes.connectedSubnets().isEmpty)
            let index = try Self.bridge(routes)
            try routes.addAddress(index, try #require(IPAddress("10.9.0.1")), prefix: 24)
            let subnets = try routes.connectedSubnets()
            #expect(subnets.map(\.subnet.description) == ["10.9.0.0/24"])
            #expect(subnets.map(\.device) == [index])
            #expect(try routes.defaultRouteDevices().isEmpty)
        }
    }

    @Test(arguments: [
        ["route", "add", "default", "via", "10.9.0.2"],
        ["route", "add", "default", "dev", "br-a", "table", "51820"],
        ["route", "add", "default", "nexthop", "via", "10.9.0.2", "nexthop", "via", "10.9.0.3"],
        ["-6", "route", "add", "default", "via", "fd00:6d76::2"],
    ]) func aDefaultRouteLeadsOutOfItsDevice(_ arguments: [String]) async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let index = try Self.bridge(routes)
            try routes.addAddress(index, try #require(IPAddress("10.9.0.1")), prefix: 24)
            try routes.addAddress(index, try #require(IPAddress("fd00:6d76::1")), prefix: 64)
            try Self.ip(arguments)
            #expect(try routes.defaultRouteDevices() == [index])
            // It says nothing about which addresses are on the link.
            #expect(try routes.connectedSubnets().map(\.subnet.description) == ["10.9.0.0/24"])
        }
    }

    @Test func aRouteThatRefusesLeadsNowhere() async throws {
        try await inNewNetwork {
            try Self.ip(["route", "add", "unreachable", "default"])
            try Self.ip(["-6", "route", "add", "blackhole", "default"])
            #expect(try RouteSocket().defaultRouteDevices().isEmpty)
        }
    }

    /// Makes a route, which the program itself never does; in the namespace of this thread.
    private static func ip(_ arguments: [String]) throws {
        let program = try #require(findProgram("ip"))
        var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) }
        defer { words.forEach { free($0) } }
        words.append(nil)
        var pid = pid_t()
        try #require(posix_spawn(&pid, program, nil, nil, words, nil) == 0)
        var status: Int32 = 0
        try check("waitpid") { waitpid(pid, &status, 0) }
        try #require(status == 0)
    }
}
