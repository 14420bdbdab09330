// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Networking

/// Requests against their bytes, and answers as a kernel gave them or as none should.
@Suite(.timeLimit(.minutes(20))) struct NetlinkWireTests {
    private let mac = MACAddress(bits: 0x0200_00FF_0101)

    private func hex(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    @Test func aRequestHasItsLengthTypeFlagsAndSequence() {
        #expect(
            hex(LinkRequest.list().bytes(sequence: 7))
                == "20000000" + "1200" + "0503" + "07000000" + "00000000"
                + "00000000000000000000000000000000")
    }

    @Test func aBridgeIsOneMessage() throws {
        let body = try LinkRequest.addBridge("br-a", mac: mac, group: 4242).body
        #expect(
            hex(body) == "00000000000000000000000000000000"
                + "09000300" + "62722d6100000000"  // name, padded
                + "0a000100" + "020000ff01010000"  // address, padded
                + "08001b00" + "92100000"  // group
                + "2c001280"  // link info, nested
                + "0a000100" + "6272696467650000"  // kind
                + "1c000280"  // data, nested
                + "08000100" + "00000000"  // no forward delay
                + "08000500" + "00000000"  // no spanning tree
                + "05001700" + "00000000")  // no snooping
    }

    @Test func aMacvtapNamesParentAndMode() throws {
        let request = try LinkRequest.addMacvtap(
            "m", parent: 3, mode: .private, mac: mac, group: 0)
        #expect(
            hex(request.body) == "00000000000000000000000000000000"
                + "060003006d000000" + "0800050003000000" + "0a000100020000ff01010000"
                + "1c001280" + "0b0001006d616376746170" + "00" + "0c000280" + "0800010001000000")
        #expect(request.flags == 0x605)
    }

    @Test func everyMacvtapModeHasItsNumber() throws {
        let numbers = try MacvtapMode.allCases.map { mode in
            let request = try LinkRequest.addMacvtap(
                "m", parent: 3, mode: mode, mac: mac, group: 0)
            return "\(mode) \(request.body[request.body.count - 4])"
        }
        #expect(numbers == ["bridge 4", "vepa 2", "private 1", "passthru 8", "source 16"])
    }

    @Test func onlyWhatChangesIsInAChange() throws {
        #expect(
            hex(try LinkRequest.change(5, LinkChanges(isUp: false)).body)
                == "00000000" + "05000000" + "00000000" + "01000000")
        #expect(
            hex(try LinkRequest.change(5, LinkChanges(master: LinkChanges.noMaster)).body)
                == "00000000" + "05000000" + "00000000" + "00000000" + "08000a0000000000")
        let all = LinkChanges(
            isUp: true, master: 2, alias: "abc", group: 1, mtu: 1400, mac: mac,
            withoutLinkLocal: true)
        #expect(
            hex(try LinkRequest.change(5, all).body)
                == "00000000" + "05000000" + "01000000" + "01000000" + "0a000100020000ff01010000"
                + "0800040078050000" + "08000a0002000000" + "0700140061626300" + "08001b0001000000"
                + "10001a80" + "0c000a80" + "0500080001000000")
    }

    @Test func aPortChangeIsOfTheBridgeFamily() {
        #expect(
            hex(LinkRequest.changePort(5, PortChanges(isIsolated: true, learns: false)).body)
                == "07000000" + "05000000" + "00000000" + "00000000"
                + "14000c80" + "0500080000000000" + "0500210001000000")
    }

    @Test func aPlaceIsAnEntryOfTheBridgeAndNotOfItsPort() {
        let mac = MACAddress(bits: 0x0200_0000_0102)
        let message = LinkRequest.place(mac, behind: 5)
        #expect(
            hex(message.body)
                == "07000000" + "05000000" + "40000400" + "0a00020002000000" + "01020000")
        #expect(message.flags == 0x405)
    }

    @Test func anAddressOfIPv6IsNotLookedForFirst() throws {
        let v4 = InterfaceAddress(index: 5, address: .v4(IPv4(0x0A09_0001)), prefix: 24)
        #expect(
            hex(try AddressRequest.add(v4).body)
                == "02180000" + "05000000" + "080002000a090001" + "080001000a090001")
        let v6 = InterfaceAddress(
            index: 5, address: .v6(IPv6(high: 0xFD << 56, low: 1)), prefix: 64)
        #expect(
            hex(try AddressRequest.add(v6).body)
                == "0a400200" + "05000000" + "14000200fd000000000000000000000000000001"
                + "14000100fd000000000000000000000000000001")
    }

    @Test(arguments: [
        ("", EINVAL), ("tap%d", EINVAL), ("a/b", EINVAL), ("a b", EINVAL), ("a\0b", EINVAL),
        ("..", EINVAL), ("sixteen-bytes-xx", ENAMETOOLONG), ("ééééééééé", ENAMETOOLONG),
    ]) func aNameIsRefusedAndNotCut(_ name: String, code: Int32) throws {
        #expect { try LinkRequest.addIFB(name, group: 0) } throws: {
            ($0 as? SystemError)?.code == code
        }
        #expect { _ = try Tap.open(name, owner: nil) } throws: {
            ($0 as? SystemError)?.code == code
        }
    }

    @Test func aPrefixOutsideItsFamilyIsRefused() {
        for prefix in [-1, 33, 1 << 40] {
            let address = InterfaceAddress(index: 5, address: .any, prefix: prefix)
            #expect(throws: SystemError.self) { try AddressRequest.add(address) }
        }
    }

    @Test func aRecordedTapIsRead() throws {
        let replies = try NetlinkReply.parse(Recorded.tapOnBridge)
        #expect(replies.map(\.type) == [RTM.newLink])
        let link = try Link(try #require(replies.first))
        #expect(
            link
                == Link(
                    index: 3, name: "t0", kind: "tun", alias: "martlet:web/0", group: 4242,
                    mac: MACAddress("02:00:00:00:00:05"), master: 2, isUp: true, hasCarrier: false,
                    mtu: 1500, statistics: Link.Statistics(),
                    port: Link.BridgePort(isIsolated: true, hasGuard: true, learns: true)))
    }

    @Test func recordedRoutesAreRead() throws {
        let routes = try NetlinkReply.parse(Recorded.routes).compactMap { try Route($0) }
        #expect(
            routes == [
                Route(
                    destination: .v4(IPv4(0x0A08_0000)), prefix: 16, devices: [2, 2], table: 254,
                    isConnected: false),
                Route(
                    destination: .v4(IPv4(0x0A09_0000)), prefix: 24, devices: [2], table: 254,
                    isConnected: true),
            ])
    }

    @Test func theKernelsWordsArePartOfTheError() throws {
        let refusal = try #require(try NetlinkReply.parse(Recorded.unknownKind).first)
        #expect(
            try refusal.failure("add x") == SystemError("add x (Unknown device type)", EOPNOTSUPP))
        let list = try #require(try NetlinkReply.parse(Recorded.refusedList).first)
        #expect(
            try list.failure("list")
                == SystemError(
                    "list (Filter by device index not supported for link dumps)", EINVAL))
    }

    /// Reads bytes in all the ways that a socket would, whatever they are.
    private func readAll(_ bytes: [UInt8]) -> Bool {
        do {
            for reply in try NetlinkReply.parse(bytes) {
                _ = try reply.failure("x")
                _ = try Link(reply)
                _ = try Route(reply)
                _ = try InterfaceAddress(reply)
            }
            return true
        } catch {
            return false
        }
    }

    @Test func aTruncatedAnswerIsAnErrorWhereverItEnds() {
        for whole in [Recorded.tapOnBridge, Recorded.unknownKind] {
            for length in 1..<whole.count {
                #expect(throws: SystemError("netlink message", EBADMSG)) {
                    try NetlinkReply.parse(Array(whole.prefix(length)))
                }
            }
        }
    }

    @Test func aMessageCutWithinAnAttributeIsAnError() {
        // The outer length is right, so that what is inside has to notice.
        for length in [17, 31, 34, 37, 38, 41] {
            var bytes = Array(Recorded.tapOnBridge.prefix(length))
            bytes[0] = UInt8(length)
            bytes[1] = 0
            #expect(throws: SystemError.self) { try NetlinkReply.parse(bytes).map { try Link($0) } }
        }
    }

    @Test func noByteOfAnAnswerTrapsOrLoops() {
        var refused = 0
        for whole in [
            Recorded.tapOnBridge, Recorded.routes, Recorded.unknownKind, Recorded.refusedList,
        ] {
            for position in whole.indices {
                for value in [0, 1, 3, 4, 15, 0x7F, 0x80, 0xFF] as [UInt8] {
                    var bytes = whole
                    bytes[position] = value
                    if !readAll(bytes) { refused += 1 }
                }
            }
        }
        #expect(refused > 1000)
    }

    @Test func lengthsThatCannotBeAreErrors() {
        let header: [UInt8] = [16, 0, 0, 0] + Array(repeating: 0, count: 12)
        #expect(throws: SystemError.self) { try NetlinkReply.parse([0, 0, 0, 0] + header) }
        #expect(throws: SystemError.self) { try NetlinkReply.parse([255, 255, 255, 255] + header) }
        #expect(throws: SystemError.self) { try attributes([0, 0, 1, 0]) }
        #expect(throws: SystemError.self) { try attributes([3, 0, 1, 0]) }
        #expect(throws: SystemError.self) { try attributes([9, 0, 1, 0, 1, 2, 3, 4]) }
        #expect(throws: SystemError.self) { try attributes([4, 0]) }
    }
}
