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

    /// A name of at most 15 characters: `mv-`, what fits of the VM's name, and six of a digest.
    ///
    /// Never `vt-`, `ve-` or `vb-`: systemd-networkd takes such interfaces over.
    package static func tap(fleet: String, vm: String, interface: Int) -> String {
        let digits = Array("abcdefghijklmnopqrstuvwxyz234567".utf8)
        var bits = digest("tap", fleet, vm, String(interface))
        var end: [UInt8] = []
        for _ in 0..<6 {
            end.append(digits[Int(bits & 31)])
            bits >>= 5
        }
        var start = String(vm.prefix(5))
        while start.hasSuffix("-") { start.removeLast() }
        return "mv-\(start)-" + String(decoding: end, as: UTF8.self)
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
