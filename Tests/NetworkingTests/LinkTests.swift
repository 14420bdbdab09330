// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Networking
import Support
import Testing

/// Interfaces, addresses and routes of the real kernel.
@Suite(.timeLimit(.minutes(20))) struct LinkTests {
    @Test func aBridgeIsAsItWasAskedFor() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let index = try routes.addBridge(
                "br-a", mac: MACAddress(bits: 0x0200_00FF_0101), alias: "martlet:lab", group: 4242)
            let bridge = try #require(try routes.link("br-a"))
            #expect(bridge.index == index)
            #expect(bridge.kind == "bridge")
            #expect(bridge.alias == "martlet:lab")
            #expect(bridge.group == 4242)
            #expect(bridge.mac?.description == "02:00:00:ff:01:01")
            #expect(!bridge.isUp)
            #expect(try routes.links().contains(bridge))
            // The class of sysfs that tells these shows another namespace's interfaces.
            let sysfs = try mountSysfs()
            let folder = "/proc/self/fd/\(sysfs.raw)/class/net/br-a/bridge"
            for setting in ["forward_delay", "stp_state", "multicast_snooping"] {
                #expect(try Files.readText("\(folder)/\(setting)") == "0\n")
            }
        }
    }

    @Test func aBridgeKeepsItsAddressWhenPortsComeAndGo() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let mac = MACAddress(bits: 0x0200_00FF_0101)
            let bridge = try routes.addBridge("br-a", mac: mac, alias: "x", group: 1)
            try routes.set(bridge, LinkChanges(isUp: true))
            // Lower than that of the bridge, which would take it if its own were not fixed.
            let low = MACAddress(bits: 0x0200_0000_0001)
            let port = try routes.addVeth("v0", peer: "v1")
            try routes.set(port, LinkChanges(isUp: true, master: bridge, mac: low))
            #expect(try routes.link("v0")?.master == bridge)
            #expect(try routes.link("br-a")?.mac == mac)
            try routes.set(port, LinkChanges(master: LinkChanges.noMaster))
            #expect(try routes.link("v0")?.master == nil)
            try routes.delete(port)
            #expect(try routes.link("br-a")?.mac == mac)
        }
    }

    @Test func everyChangeIsReadBack() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let index = try routes.addVeth("v0", peer: "v1", alias: "first", group: 7)
            #expect(try routes.link("v0")?.alias == "first")
            #expect(try routes.link("v0")?.group == 7)
            let mac = MACAddress(bits: 0x0200_0000_0009)
            try routes.set(
                index, LinkChanges(isUp: true, alias: "second", group: 8, mtu: 1400, mac: mac))
            let link = try #require(try routes.link("v0"))
            #expect(link.isUp && link.alias == "second" && link.group == 8)
            #expect(link.mtu == 1400 && link.mac == mac)
            #expect(link.parent == (try routes.link("v1"))?.index)
            try routes.set(index, LinkChanges(isUp: false, alias: ""))
            #expect(try routes.link("v0")?.isUp == false)
            #expect(try routes.link("v0")?.alias == nil)
            #expect(try routes.link("v0")?.group == 8)
        }
    }

    @Test func withoutLinkLocalThereIsNoAddress() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            // An interface that needs no carrier has its own address as soon as it is up.
            let silent = try routes.addIFB("silent", alias: "", group: 1)
            let other = try routes.addIFB("other", alias: "", group: 1)
            try routes.set(silent, LinkChanges(isUp: true, withoutLinkLocal: true))
            try routes.set(other, LinkChanges(isUp: true))
            let found = try routes.addresses().map(\.index)
            #expect(found.contains(other))
            #expect(!found.contains(silent))
            // With an MTU below 1280 an interface has no IPv6 that could be told anything.
            try routes.set(silent, LinkChanges(mtu: 1000))
            try routes.set(silent, LinkChanges(alias: "small", withoutLinkLocal: true))
            #expect(try routes.link("silent")?.alias == "small")
        }
    }

    @Test func anIsolatedPortIsReadBackAndOpenedAgain() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let bridge = try routes.addBridge(
                "br-a", mac: MACAddress(bits: 0x0200_00FF_0101), alias: "x", group: 1)
            let port = try routes.addVeth("v0", peer: "v1")
            #expect(throws: SystemError.self) { try routes.setIsolated(port, true) }
            try routes.set(port, LinkChanges(master: bridge))
            #expect(try routes.link("v0")?.port?.isIsolated == false)
            try routes.setIsolated(port, true)
            try routes.setPort(port, PortChanges(hasGuard: true, learns: false))
            let settings = try #require(try routes.link("v0")?.port)
            #expect(settings.isIsolated && settings.hasGuard && !settings.learns)
            try routes.setIsolated(port, false)
            #expect(try routes.link("v0")?.port?.isIsolated == false)
            #expect(try routes.link("v1")?.port == nil)
        }
    }

    @Test func aGroupIsRemovedAndNothingElse() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let before = Set(try routes.links().map(\.name))
            for number in 0..<5 { try routes.addIFB("mine\(number)", alias: "x", group: 4242) }
            try routes.addIFB("other", alias: "x", group: 4243)
            try routes.addIFB("none", alias: "x", group: 0)
            try routes.delete(group: 4242)
            #expect(Set(try routes.links().map(\.name)) == before.union(["other", "none"]))
            try routes.delete(group: 4242)
            #expect { try routes.delete(group: 0) } throws: {
                ($0 as? SystemError)?.isPermission == true
            }
            #expect(Set(try routes.links().map(\.name)) == before.union(["other", "none"]))
        }
    }

    @Test func deletingTwiceIsNoError() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let index = try routes.addIFB("gone", alias: "x", group: 1)
            try routes.delete(index)
            #expect(try routes.link("gone") == nil)
            try routes.delete(index)
        }
    }

    @Test func aNameThatIsTakenIsLeftAlone() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            try routes.addIFB("taken", alias: "theirs", group: 1)
            #expect {
                try routes.addBridge(
                    "taken", mac: MACAddress(bits: 0x0200_00FF_0101), alias: "ours", group: 2)
            } throws: {
                ($0 as? SystemError)?.isExisting == true
            }
            let link = try #require(try routes.link("taken"))
            #expect(link.kind == "ifb" && link.alias == "theirs" && link.group == 1)
        }
    }

    @Test func anAliasThatCannotBeLeavesNoInterface() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            let long = String(repeating: "x", count: 256)
            #expect(throws: SystemError.self) { try routes.addIFB("half", alias: long, group: 1) }
            #expect(try routes.link("half") == nil)
            let longest = String(repeating: "x", count: 255)
            try routes.addIFB("whole", alias: longest, group: 1)
            #expect(try routes.link("whole")?.alias == longest)
        }
    }

    @Test func aSocketWorksOnAfterAnError() async throws {
        try await inNewNetwork {
            let routes = try RouteSocket()
            #expect { try routes.set(12345, LinkChanges(isUp: true)) } throws: {
                ($0 as? SystemError)?.code == ENODEV
            }
            #expect(try routes.links().contains { $0.name == "lo" && $0.isUp })
        }
    }

    @Test func manyInterfacesAreListedWhole() async throws {
        // Several of the kernel's answers are needed for these.
        try await inNewNetwork {
            let routes = try RouteSocket()
            let before = try routes.links().count
            for number in 0..<60 { try routes.addIFB("many\(number)", alias: "x", group: 4242) }
            let names = try routes.links().map(\.name)
            #expect(names.count == before + 60)
            #expect(Set(names).count == names.count)
        }
    }

    @Test func aPeerCanBeInAnotherNamespace() async throws {
        try await inNewNetwork {
            let outer = try RouteSocket()
            // A socket stays in the namespace that it was made in, while its thread moves on.
            try enterNewNetwork()
            let inner = try Descriptor.open("/proc/thread-self/ns/net", O_RDONLY)
            let here = try RouteSocket()
            try outer.addVeth("v0", peer: "v1", peerNamespace: inner.raw)
            #expect(try outer.link("v0") != nil)
            #expect(try outer.link("v1") == nil)
            #expect(try here.link("v1")?.kind == "veth")
        }
    }

    @Test func statisticsCountWhatPasses() async throws {
        try await inNewNetwork {
            let before = try #require(try RouteSocket().link("lo")).statistics
            let sender = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
            defer { close(sender) }
            var to = sockaddr_in()
            to.sin_family = sa_family_t(AF_INET)
            to.sin_port = UInt16(9).bigEndian
            to.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            let sent = withUnsafePointer(to: &to) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    sendto(
                        sender, [UInt8](repeating: 0, count: 100), 100, 0, $0,
                        socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            #expect(sent == 100)
            let after = try #require(try RouteSocket().link("lo")).statistics
            #expect(after.sentPackets > before.sentPackets)
            #expect(after.sentBytes >= before.sentBytes + 100)
            #expect(after.receivedBytes >= before.receivedBytes + 100)
        }
    }
}
