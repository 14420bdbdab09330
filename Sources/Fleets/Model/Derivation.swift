// SPDX-License-Identifier: Apache-2.0

/// Names and addresses that follow from the names of fleet and VM, always the same ones.
package enum Derived {
    /// A locally administered unicast address.
    package static func mac(fleet: String, vm: String, interface: Int) -> MACAddress {
        let bits = digest("mac", fleet, vm, String(interface))
        return MACAddress(bits: bits & ~(3 << 40) | 2 << 40)
    }

    /// A vsock context identifier; 0 to 2 and the largest number are reserved.
    package static func cid(fleet: String, vm: String) -> UInt32 {
        UInt32(3 + digest("cid", fleet, vm) % (UInt64(UInt32.max) - 3))
    }

    /// A UUID of version 8 (RFC 9562).
    package static func uuid(fleet: String, vm: String) -> MachineUUID? {
        let high = digest("uuid-high", fleet, vm) & ~0xF000 | 0x8000
        let low = digest("uuid-low", fleet, vm) & ~(3 << 62) | 2 << 62
        let text = hex(high, 16) + hex(low, 16)
        var out = ""
        for (index, character) in text.enumerated() {
            if [8, 12, 16, 20].contains(index) { out += "-" }
            out.append(character)
        }
        return MachineUUID(out)
    }

    /// The name of a VM's tap on the host: `mv-`, what fits of the VM's name, and six of a digest.
    package static func tap(fleet: String, vm: String, interface: Int) -> String {
        interfaceName("mv", vm, digest("tap", fleet, vm, String(interface)))
    }

    /// The name of the bridge of a network of ours.
    package static func bridge(fleet: String, network: String) -> String {
        interfaceName("mb", network, digest("bridge", fleet, network))
    }

    /// The name of the device through which what a tap receives is slowed down.
    package static func shaper(tap: String) -> String {
        interfaceName(
            "mi", tap.hasPrefix("mv-") ? String(tap.dropFirst(3)) : tap, digest("ifb", tap))
    }

    /// The hardware address of a network's gateway; it stays while VMs come and go.
    package static func gatewayMAC(fleet: String, network: String) -> MACAddress {
        MACAddress(bits: digest("gateway", fleet, network) & ~(3 << 40) | 2 << 40)
    }

    /// The numbers of the users that VMs run as; the next one is that of a VM's helpers.
    ///
    /// The range lies above those of people, of DynamicUser, of subuids and of systemd-nspawn, so
    /// that no other program hands the same number out.
    package static let users: ClosedRange<UInt32> = 1_900_000_000...1_989_999_999
    package static let helper: UInt32 = 1_990_000_000
    /// Those of the reverse proxy, and of what asks for certificates by DNS.
    package static let proxy: UInt32 = 1_990_000_001
    package static let certifier: UInt32 = 1_990_000_002

    /// Where the users of a guest begin on the host, for shares that map them: ranges of 65536.
    ///
    /// They end below 2^31, where some programs take a number for a negative one.
    package static let firstMapped: UInt32 = 2_000_000_000
    package static let mappedRanges: UInt32 = 2249

    /// Six hexadecimal digits that stand for the path of a ROOT.
    package static func rootID(_ path: String) -> String { hex(digest("root", path) >> 40, 6) }

    /// Eight hexadecimal digits that stand for a text.
    package static func fingerprint(_ text: String) -> String { hex(digest(text) >> 32, 8) }

    /// At most 15 characters, all that the kernel takes.
    ///
    /// Never `vt-`, `ve-` or `vb-`: systemd-networkd takes such interfaces over.
    private static func interfaceName(_ kind: String, _ name: String, _ digest: UInt64) -> String {
        let digits = Array("abcdefghijklmnopqrstuvwxyz234567".utf8)
        var bits = digest
        var end: [UInt8] = []
        for _ in 0..<6 {
            end.append(digits[Int(bits & 31)])
            bits >>= 5
        }
        var start = String(name.prefix(5))
        while start.hasSuffix("-") { start.removeLast() }
        return "\(kind)-\(start)-" + String(decoding: end, as: UTF8.self)
    }

    /// A /64 of a unique local prefix (RFC 4193) for one network.
    package static func subnet6(fleet: String, network: String) -> CIDR6 {
        let global = digest("ula", fleet) >> 24
        let subnet = digest("ula-subnet", fleet, network) >> 48
        return CIDR6(base: IPv6(high: 0xFD << 56 | global << 16 | subnet, low: 0), prefix: 64)
    }

    /// FNV-1a with the finish of SplitMix64: spreads well, and never changes.
    private static func digest(_ parts: String...) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for part in parts {
            for byte in part.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
            hash = (hash ^ 0xFF) &* 0x100_0000_01B3  // no byte of UTF-8: keeps "a","b" from "ab"
        }
        hash = (hash ^ hash >> 30) &* 0xBF58_476D_1CE4_E5B9
        hash = (hash ^ hash >> 27) &* 0x94D0_49BB_1331_11EB
        return hash ^ hash >> 31
    }
}

extension VM {
    /// The vsock context identifier; nil when vsock is off.
    package func cid(fleet: String) -> UInt32? {
        switch vsock {
        case .off: nil
        case .cid(let number): number
        case .auto: Derived.cid(fleet: fleet, vm: name)
        }
    }
}
