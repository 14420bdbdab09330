// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Where the processes of a control group may not connect to, nor send datagrams.
///
/// Programs of the kernel (BPF) at the group: they hold for everything in it, whatever a process
/// makes of itself, and go with it. What others open towards it is not touched, nor are answers.
package struct ReachFilter: Sendable, Equatable {
    /// A range of addresses.
    package struct Range: Sendable, Equatable {
        /// Four octets or sixteen.
        package var address: [UInt8]
        /// Leading bits that count.
        package var prefix: Int

        package init(_ address: [UInt8], prefix: Int) {
            self.address = address
            self.prefix = prefix
        }
    }

    package var closed: [Range]
    /// Open even where `closed` has them.
    package var open: [Range]
    /// Open at every address.
    package var port: UInt16

    package init(closed: [Range], open: [Range] = [], port: UInt16) {
        self.closed = closed
        self.open = open
        self.port = port
    }

    private static let name = "martlet_reach"

    private static let calls: [(call: ml_reach, octets: Int)] = [
        (ML_REACH_CONNECT4, 4), (ML_REACH_CONNECT6, 16), (ML_REACH_SEND4, 4), (ML_REACH_SEND6, 16),
    ]

    /// Puts it in the place of the one that a group of the second version has.
    ///
    /// The corresponding C function is `bpf`.
    package func attach(to group: String) throws(SystemError) {
        let folder = try Descriptor.open(group, O_RDONLY | O_DIRECTORY)
        for (call, octets) in ReachFilter.calls {
            let program = program(octets: octets)
            try checkNegative(
                "bpf \(group)",
                ml_reach_set(folder.raw, call, ReachFilter.name, program, program.count))
        }
    }

    /// Whether a group, or one above it, has one.
    ///
    /// The corresponding C function is `bpf`; it needs privilege.
    package static func isAttached(to group: String) throws(SystemError) -> Bool {
        let folder = try Descriptor.open(group, O_RDONLY | O_DIRECTORY)
        for (call, _) in calls {
            let holds = try checkNegative("bpf \(group)", ml_reach_holds(folder.raw, call, name))
            if holds == 0 { return false }
        }
        return true
    }
}

// MARK: - The program

extension ReachFilter {
    /// The instructions for one family; pure.
    ///
    /// They read the kernel's `struct bpf_sock_addr`: the port in the order of the network in the
    /// lower half of a word at 24, IPv4 at 4 and IPv6 at 8.
    func program(octets: Int) -> [UInt64] {
        var code = [
            Self.load(2, at: 24), Self.jump(0x16, 2, UInt32(port.bigEndian), to: .open),
        ]
        let start = octets == 4 ? 4 : 8
        for (ranges, target) in [(open, Label.open), (closed, .closed)] {
            for range in ranges where range.address.count == octets {
                code += Self.check(range, at: start, to: target)
            }
        }
        return Self.resolve(code)
    }

    private enum Label { case open, closed }

    /// An instruction, and where it jumps to.
    private struct Line {
        var bits: UInt64
        var label: Label?
    }

    private static func line(
        _ code: UInt64, _ register: UInt64, offset: Int = 0, value: UInt32 = 0
    ) -> Line {
        Line(
            bits: code | register << 8 | UInt64(UInt16(truncatingIfNeeded: offset)) << 16
                | UInt64(value) << 32)
    }

    /// A word of what is looked at, which register 1 leads to.
    private static func load(_ register: UInt64, at offset: Int) -> Line {
        line(0x61, register | 1 << 4, offset: offset)
    }

    private static func jump(
        _ code: UInt64, _ register: UInt64, _ value: UInt32, to label: Label
    ) -> Line {
        var line = line(code, register, value: value)
        line.label = label
        return line
    }

    /// Jumps when an address is in the range, word by word.
    private static func check(_ range: Range, at start: Int, to label: Label) -> [Line] {
        var lines: [Line] = []
        let words = (range.prefix + 31) / 32
        for word in 0..<words {
            let bits = min(32, range.prefix - 32 * word)
            let mask = ~UInt32(0) << UInt32(32 - bits)
            let value = range.address[(4 * word)..<(4 * word + 4)].reduce(0) {
                $0 << 8 | UInt32($1)
            }
            lines += [
                load(3, at: start + 4 * word),
                // From the order of the network to the machine's.
                line(0xdc, 3, value: 32), line(0x54, 3, value: mask),
                // Behind the range's last line.
                line(0x56, 3, offset: 4 * (words - word - 1) + 1, value: value & mask),
            ]
        }
        return lines + [jump(0x05, 0, 0, to: label)]
    }

    /// Puts in where the jumps lead to: both ends follow the last line.
    private static func resolve(_ lines: [Line]) -> [UInt64] {
        let (opened, refused) = (
            [line(0xb7, 0, value: 1), line(0x95, 0)], [line(0xb7, 0), line(0x95, 0)]
        )
        // The kernel takes no line that is never come to.
        let ends = opened + (lines.contains { $0.label == .closed } ? refused : [])
        let code = lines.enumerated().map { index, line in
            guard let label = line.label else { return line.bits }
            let target = lines.count + (label == .open ? 0 : 2)
            return line.bits | UInt64(UInt16(target - index - 1)) << 16
        }
        return code + ends.map(\.bits)
    }
}
