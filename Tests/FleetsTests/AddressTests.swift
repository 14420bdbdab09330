// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

@Suite struct AddressTests {
    @Test(arguments: [
        ("10.1.0.2", true), ("255.255.255.255", true), ("0.0.0.0", true), ("10.1.0", false),
        ("10.1.0.256", false), ("10.1.0.02", false), ("10.1.0.+2", false), ("10.1..2", false),
        ("", false),
    ])
    func ipv4(text: String, valid: Bool) {
        #expect(IPv4(text)?.description == (valid ? text : nil))
    }

    @Test(arguments: [
        ("::", "::"), ("::1", "::1"), ("fd00::1", "fd00::1"), ("FD00:0:0:1::", "fd00:0:0:1::"),
        ("1:0:0:2:0:0:0:3", "1:0:0:2::3"), ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
        ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"),
    ])
    func ipv6(text: String, canonical: String) { #expect(IPv6(text)?.description == canonical) }

    @Test(arguments: [
        "", ":", ":::", "1::2::3", "1:2:3", "g::", "12345::", "1:2:3:4:5:6:7:8:9", "+1::",
    ])
    func noIPv6(text: String) { #expect(IPv6(text) == nil) }

    @Test func subnets() throws {
        let subnet = try #require(CIDR("10.1.0.0/24"))
        #expect(subnet.broadcast.description == "10.1.0.255")
        #expect(subnet.firstHost.description == "10.1.0.1")
        #expect(subnet.contains(try #require(IPv4("10.1.0.77"))))
        #expect(!subnet.contains(try #require(IPv4("10.1.1.0"))))
        #expect(subnet.overlaps(try #require(CIDR("10.0.0.0/8"))))
        #expect(!subnet.overlaps(try #require(CIDR("10.1.1.0/24"))))
        #expect(CIDR("0.0.0.0/0")?.contains(IPv4(7)) == true)
        #expect(CIDR("10.1.0.1/24") == nil, "host bits")
        #expect(CIDR("10.1.0.0/33") == nil)
        #expect(CIDR6("fd00:1::/64")?.description == "fd00:1::/64")
        #expect(CIDR6("fd00:1::1/64") == nil, "host bits")
        #expect(CIDR6("fd00::/8")?.overlaps(try #require(CIDR6("fd12::/16"))) == true)
        #expect(CIDR6("::/0")?.contains(IPv6(high: 5, low: 6)) == true)
        #expect(CIDR6("::1/128")?.contains(IPv6(high: 0, low: 1)) == true)
    }

    @Test func mac() throws {
        let mac = try #require(MACAddress("02:00:00:aB:00:01"))
        #expect(mac.description == "02:00:00:ab:00:01")
        #expect(!mac.isMulticast)
        #expect(MACAddress("03:00:00:00:00:01")?.isMulticast == true)
        for text in [
            "", "02:00:00:00:00", "02:00:00:00:00:0", "02-00-00-00-00-01", "+2:00:00:00:00:01",
        ] {
            #expect(MACAddress(text) == nil, "\(text)")
        }
    }

    @Test(arguments: [
        ("127.0.0.1:2201:22", "127.0.0.1:2201:22"), ("8080:80", "8080:80"),
        ("8080:80/tcp", "8080:80"), ("5353:53/udp", "5353:53/udp"),
        ("[::1]:2201:22", "[::1]:2201:22"), ("0.0.0.0:80:80", "80:80"),
    ])
    func forward(text: String, printed: String) throws {
        let port = try #require(PortForward(text))
        #expect(port.description == printed)
        #expect(PortForward(printed) == port)
    }

    @Test(arguments: [
        "", "80", "0:80", "80:0", "80:65536", "80:80/sctp", "x:80:80", "[::1:80:80", "[]:1:2",
        "::1:80:80", "1:2:3",
    ])
    func noForward(text: String) { #expect(PortForward(text) == nil) }

    @Test(arguments: ["tcp:443", "udp:53@9.9.9.9", "10.9.0.0/16", "9.9.9.9", "tcp:443@10.0.0.0/8"])
    func egress(text: String) { #expect(EgressRule(text)?.description == text) }

    @Test(arguments: [
        "", "tcp", "tcp:0", "icmp:1", "tcp:443@", "10.9.0.1/16@10.0.0.0/8", "tcp:443@x",
    ])
    func noEgress(text: String) { #expect(EgressRule(text) == nil) }
}

/// Whose page a health check asks for decides whether its certificate counts.
@Suite struct HTTPTargetTests {
    @Test(arguments: [
        ("https://:443/", true), ("https://localhost:8443/", true), ("https://127.0.0.2/", true),
        ("https://10.1.0.2/", true), ("https://Vault.web.internal/", true),
        ("https://www.example.org/", false), ("https://10.1.0.3/", false),
        ("https://internal/", false), ("https://127.example.org/", false),
    ]) func certificatesOfGuestsAreNotLookedAt(_ text: String, _ isGuests: Bool) throws {
        var vm = VM(name: "a")
        vm.interfaces = [Interface()]
        vm.interfaces[0].address = IPv4("10.1.0.2")
        #expect(try #require(HTTPTarget(text)).isOfGuest(vm) == isGuests)
    }
}
