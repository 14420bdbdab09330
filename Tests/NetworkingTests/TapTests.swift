// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Networking
import Support
import Testing

@Suite(.timeLimit(.minutes(20))) struct TapTests {
    @Test func aTapVanishesWithItsLastDescriptor() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            var tap: Descriptor? = try Tap.open("t0", owner: 65534)
            #expect(try routes.link("t0")?.kind == "tun")
            let copy = try tap?.duplicate()
            tap = nil
            #expect(try routes.link("t0") != nil)
            _ = consume copy
            // A child that another test has just forked holds a copy until its exec.
            for _ in 0..<1000 where (try routes.link("t0")) != nil { usleep(10_000) }
            #expect(try routes.link("t0") == nil)
        }
    }

    @Test func aTapInUseIsBusy() async throws {
        try await inNewNetwork {
            let tap = try Tap.open("t0", owner: nil)
            #expect { _ = try Tap.open("t0", owner: nil) } throws: {
                ($0 as? SystemError)?.isBusy == true
            }
            #expect(try RouteSocket().link("t0") != nil)
            _ = tap.raw
        }
    }

    @Test func anInterfaceOfAnotherOwnerIsLeftAlone() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let index = try routes.addIFB("t0", alias: "theirs", group: 1)
            #expect { _ = try Tap.open("t0", owner: nil) } throws: {
                ($0 as? SystemError)?.isBusy == true
            }
            let link = try routes.link("t0")
            #expect(link?.index == index && link?.alias == "theirs")
        }
    }

    @Test func framesPassThroughATapWithAVirtioHeader() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let tap = try Tap.open("t0", owner: nil)
            let index = try #require(try routes.link("t0")).index
            try routes.set(index, LinkChanges(isUp: true, withoutLinkLocal: true))
            #expect(try routes.link("t0")?.hasCarrier == true)
            let header = [UInt8](repeating: 0, count: 10)
            let frame = [UInt8](repeating: 0xFF, count: 6) + [2, 0, 0, 0, 0, 1, 0x88, 0xB5]
            let padding = [UInt8](repeating: 0, count: 46)
            try tap.write(header + frame + padding)
            let statistics = try #require(try routes.link("t0")).statistics
            #expect(statistics.receivedPackets == 1)
            #expect(statistics.receivedBytes == 60)
        }
    }

    @Test(arguments: [MacvtapMode.bridge, .private, .vepa])
    func aMacvtapOpensInANamespaceOfItsOwn(_ mode: MacvtapMode) async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let parent = try routes.addVeth("v0", peer: "v1")
            let mac = MACAddress(bits: 0x0200_0000_0007)
            let index = try routes.addMacvtap(
                "m0", parent: parent, mode: mode, mac: mac, alias: "martlet:web/0", group: 9)
            let link = try #require(try routes.link("m0"))
            #expect(link.kind == "macvtap" && link.parent == parent && link.mac == mac)
            #expect(link.alias == "martlet:web/0" && link.group == 9)
            let device = try Macvtap.open(index)
            try routes.set(parent, LinkChanges(isUp: true))
            try routes.set(try #require(try routes.link("v1")).index, LinkChanges(isUp: true))
            try routes.set(index, LinkChanges(isUp: true, withoutLinkLocal: true))
            // The device is this interface's if what is written to it leaves through it. The carrier
            // comes a while after both ends are up, and until then frames are dropped.
            let frame: [UInt8] = [2, 0, 0, 0, 0, 9] + mac.octets + [0x88, 0xB5]
            let large = [UInt8](repeating: 0, count: 1400)
            var tries = 0
            while try #require(try routes.link("m0")).statistics.sentBytes < 1400 {
                try #require(tries < 10_000)
                try device.write([UInt8](repeating: 0, count: 10) + frame + large)
                usleep(1000)
                tries += 1
            }
        }
    }

    @Test func macvtapsOfTheSameIndexInTwoNamespacesAreNotMixedUp() async throws {
        try await inNewNetwork {
            let outer = try RouteSocket()
            let first = try Self.macvtap(outer, MACAddress(bits: 0x0200_0000_0001))
            let firstDevice = try Macvtap.open(first)
            try enterNewNetwork()
            let inner = try RouteSocket()
            let second = try Self.macvtap(inner, MACAddress(bits: 0x0200_0000_0002))
            #expect(first == second)
            let secondDevice = try Macvtap.open(second)
            #expect(try Self.number(firstDevice) != Self.number(secondDevice))
        }
    }

    @Test func aMacvtapIsNoLock() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let index = try Self.macvtap(routes, MACAddress(bits: 0x0200_0000_0001))
            let first = try Macvtap.open(index)
            let second = try Macvtap.open(index)
            #expect(try Self.number(first) == Self.number(second))
        }
    }

    private static func macvtap(
        _ routes: borrowing RouteSocket, _ mac: MACAddress
    ) throws -> Int32 {
        let parent = try routes.addVeth("v0", peer: "v1")
        return try routes.addMacvtap(
            "m0", parent: parent, mode: .bridge, mac: mac, alias: "x", group: 0)
    }

    private static func number(_ device: borrowing Descriptor) throws -> UInt64 {
        var info = stat()
        let raw = device.raw
        try check("fstat") { fstat(raw, &info) }
        return UInt64(info.st_rdev)
    }

    @Test func whatIsNoMacvtapHasNoDevice() async throws {
        _ = try await inNewNetwork {
            #expect { _ = try Macvtap.open(1) } throws: { ($0 as? SystemError)?.isMissing == true }
        }
    }
}

@Suite(.timeLimit(.minutes(20))) struct SysctlTests {
    @Test func aSettingIsOfTheThreadsOwnNamespace() async throws {
        let path = "net/ipv4/ip_default_ttl"
        let outside = try Sysctl.read(path)
        try await inNewNetwork {
            let other = outside == "77" ? "78" : "77"
            try Sysctl.write(path, other)
            #expect(try Sysctl.read(path) == other)
        }
        #expect(try Sysctl.read(path) == outside)
    }

    @Test func aNewInterfaceHasItsSettings() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            // A dot is part of the name, and not a separator.
            let name = "br.lab"
            let index = try routes.addBridge(
                name, mac: MACAddress(bits: 0x0200_00FF_0101), alias: "x", group: 1)
            try Sysctl.write("net/ipv4/conf/\(name)/forwarding", "1")
            #expect(try Sysctl.read("net/ipv4/conf/\(name)/forwarding") == "1")
            try routes.delete(index)
            #expect { try Sysctl.read("net/ipv4/conf/\(name)/forwarding") } throws: {
                ($0 as? SystemError)?.isMissing == true
            }
        }
    }

    @Test func whatTheKernelRefusesIsAnError() async throws {
        _ = try await inNewNetwork {
            #expect { try Sysctl.write("net/ipv4/ip_forward", "lots") } throws: {
                ($0 as? SystemError)?.code == EINVAL
            }
        }
    }

    @Test(arguments: ["../self/comm", "net/../../version", "", "/net", "net//ipv4", "net/ipv4\0x"])
    func aPathDoesNotLeaveItsFolder(_ path: String) {
        #expect { try Sysctl.read(path) } throws: { ($0 as? SystemError)?.code == EINVAL }
    }
}
