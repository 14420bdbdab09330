// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// A request to the kernel under construction: appended bytes, padded as netlink wants them.
struct NetlinkMessage {
    let type: UInt16
    let flags: UInt16
    private(set) var body: [UInt8] = []

    /// A request that the kernel acknowledges, or answers with a list if `flags` say so.
    init(_ type: UInt16, flags: UInt16 = 0) {
        self.type = type
        self.flags = NL.request | NL.acknowledge | flags
    }

    /// The message as it goes out.
    func bytes(sequence: UInt32) -> [UInt8] {
        var header = NetlinkMessage(type)
        header.append(UInt32(truncatingIfNeeded: NL.headerSize + body.count))
        header.append(type)
        header.append(flags)
        header.append(sequence)
        header.append(UInt32(0))
        return header.body + body
    }

    /// Appends a number in the machine's byte order.
    mutating func append(_ value: some FixedWidthInteger) {
        withUnsafeBytes(of: value) { body += $0 }
    }

    mutating func attribute(_ type: UInt16, _ value: [UInt8]) {
        // Names, aliases and addresses: all checked to be far below the 65,531 bytes that fit.
        append(UInt16(truncatingIfNeeded: 4 + value.count))
        append(type)
        body += value
        while body.count % 4 != 0 { body.append(0) }
    }

    mutating func attribute(_ type: UInt16, _ value: some FixedWidthInteger) {
        attribute(type, withUnsafeBytes(of: value) { Array($0) })
    }

    /// An attribute that consists of attributes.
    mutating func nest(_ type: UInt16, _ content: (inout NetlinkMessage) -> Void) {
        let start = body.count
        attribute(type | NL.nested, [])
        content(&self)
        let length = UInt16(truncatingIfNeeded: body.count - start)
        withUnsafeBytes(of: length) { body.replaceSubrange(start..<start + 2, with: $0) }
    }

    /// The header of a message about an interface.
    mutating func interface(
        _ index: Int32, family: UInt8 = 0, flags: UInt32 = 0, change: UInt32 = 0
    ) {
        append(UInt16(family))
        append(UInt16(0))
        append(index)
        append(flags)
        append(change)
    }
}

/// A message from the kernel.
struct NetlinkReply {
    let type: UInt16
    let flags: UInt16
    let sequence: UInt32
    let body: ArraySlice<UInt8>

    /// Splits what one `recv` returned; lengths that cannot be are the error EBADMSG.
    static func parse(_ bytes: [UInt8]) throws(SystemError) -> [NetlinkReply] {
        var replies: [NetlinkReply] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            guard let length: UInt32 = rest.number(at: 0), length >= NL.headerSize,
                length <= rest.count, let type: UInt16 = rest.number(at: 4),
                let flags: UInt16 = rest.number(at: 6), let sequence: UInt32 = rest.number(at: 8)
            else { throw SystemError("netlink message", EBADMSG) }
            let whole = rest.prefix(Int(length))
            replies.append(
                NetlinkReply(
                    type: type, flags: flags, sequence: sequence,
                    body: whole.dropFirst(NL.headerSize)))
            rest = rest.dropFirst(aligned(Int(length)))
        }
        return replies
    }

    /// What an acknowledgement or the end of a list reports: nil is success.
    ///
    /// The kernel's own words, where it has some, become part of the error.
    func failure(_ what: String) throws(SystemError) -> SystemError? {
        guard let code: Int32 = body.number(at: 0) else {
            throw SystemError("netlink acknowledgement", EBADMSG)
        }
        guard code < 0 else { return nil }
        var words: String?
        if flags & NL.hasExtendedError != 0 {
            // After the code comes the header of the request (none at the end of a list), and with
            // it the whole request unless it was left out.
            var skip = 4
            if type == NL.error, let length: UInt32 = body.number(at: 4) {
                skip += flags & NL.isCapped != 0 ? NL.headerSize : aligned(Int(length))
            }
            for (type, value) in try attributes(body.dropFirst(skip)) where type == 1 {
                words = value.text
            }
        }
        return SystemError(words.map { "\(what) (\($0))" } ?? what, 0 &- code)
    }
}

/// The attributes of a message or of one nested in it; lengths that cannot be are EBADMSG.
func attributes(
    _ bytes: ArraySlice<UInt8>
) throws(SystemError) -> [(type: UInt16, value: ArraySlice<UInt8>)] {
    var list: [(type: UInt16, value: ArraySlice<UInt8>)] = []
    var rest = bytes
    while !rest.isEmpty {
        guard let length: UInt16 = rest.number(at: 0), let type: UInt16 = rest.number(at: 2),
            length >= 4, length <= rest.count
        else { throw SystemError("netlink attribute", EBADMSG) }
        // The two highest bits say "nested" and "network byte order".
        list.append((type & 0x3FFF, rest.prefix(Int(length)).dropFirst(4)))
        rest = rest.dropFirst(aligned(Int(length)))
    }
    return list
}

private func aligned(_ length: Int) -> Int { (length + 3) & ~3 }

extension ArraySlice<UInt8> {
    /// The number at an offset from the start of the slice, nil if it does not fit.
    func number<T: FixedWidthInteger & BitwiseCopyable>(at offset: Int) -> T? {
        guard offset >= 0, count - offset >= MemoryLayout<T>.size else { return nil }
        return withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: T.self) }
    }

    /// Text up to its first NUL.
    var text: String { String(decoding: prefix { $0 != 0 }, as: UTF8.self) }
}

/// The name of an interface as netlink wants it, with its NUL.
///
/// More than 15 bytes are ENAMETOOLONG. EINVAL is what the kernel would not take as it stands: it
/// replaces `%d` by a number, and an empty name by one of its own.
func interfaceName(_ name: String) throws(SystemError) -> [UInt8] {
    guard name.utf8.count <= 15 else { throw SystemError("interface \(name)", ENAMETOOLONG) }
    let isPlain = name.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7F && !"%/:".utf8.contains($0) }
    guard !name.isEmpty, name != ".", name != "..", isPlain else {
        throw SystemError("interface '\(name)'", EINVAL)
    }
    return Array(name.utf8) + [0]
}

/// The alias of an interface as netlink wants it; more than 255 bytes are ENAMETOOLONG.
func interfaceAlias(_ alias: String) throws(SystemError) -> [UInt8] {
    guard alias.utf8.count <= 255 else { throw SystemError("alias \(alias)", ENAMETOOLONG) }
    return Array(alias.utf8)
}

/// Numbers of netlink itself, from linux/netlink.h.
enum NL {
    static let headerSize = 16
    static let request: UInt16 = 0x1
    static let acknowledge: UInt16 = 0x4
    static let dump: UInt16 = 0x300
    static let create: UInt16 = 0x400
    static let createNew: UInt16 = 0x600
    static let nested: UInt16 = 0x8000
    static let error: UInt16 = 2
    static let done: UInt16 = 3
    static let wasInterrupted: UInt16 = 0x10
    static let isCapped: UInt16 = 0x100
    static let hasExtendedError: UInt16 = 0x200
    /// SOL_NETLINK, and the options NETLINK_CAP_ACK, NETLINK_EXT_ACK and NETLINK_GET_STRICT_CHK.
    static let optionLevel: Int32 = 270
    static let options: [Int32] = [10, 11, 12]
}

/// Types of messages, from linux/rtnetlink.h.
enum RTM {
    static let newLink: UInt16 = 16
    static let deleteLink: UInt16 = 17
    static let getLink: UInt16 = 18
    static let setLink: UInt16 = 19
    static let newAddress: UInt16 = 20
    static let deleteAddress: UInt16 = 21
    static let getAddress: UInt16 = 22
    static let newRoute: UInt16 = 24
    static let getRoute: UInt16 = 26
    static let newNeighbour: UInt16 = 28
}

/// Attributes of interfaces, from linux/if_link.h.
enum IFLA {
    static let address: UInt16 = 1
    static let name: UInt16 = 3
    static let mtu: UInt16 = 4
    static let parent: UInt16 = 5
    static let master: UInt16 = 10
    static let protocolInfo: UInt16 = 12
    static let linkInfo: UInt16 = 18
    static let alias: UInt16 = 20
    static let statistics: UInt16 = 23
    static let familySpecific: UInt16 = 26
    static let group: UInt16 = 27
    static let namespace: UInt16 = 28
    /// Within `linkInfo`.
    static let kind: UInt16 = 1
    static let data: UInt16 = 2
    static let portKind: UInt16 = 4
    static let portData: UInt16 = 5
    /// Within the data of a bridge.
    static let forwardDelay: UInt16 = 1
    static let spanningTree: UInt16 = 5
    static let multicastSnooping: UInt16 = 23
    /// Within the data of a bridge's port.
    static let portGuard: UInt16 = 5
    static let portLearning: UInt16 = 8
    static let portIsolated: UInt16 = 33
    /// Within the data of a macvtap and of a veth.
    static let macvlanMode: UInt16 = 1
    static let vethPeer: UInt16 = 1
    /// Within the IPv6 part of `familySpecific`.
    static let addressGeneration: UInt16 = 8
}
