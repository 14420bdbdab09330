// SPDX-License-Identifier: Apache-2.0
package import Fleets
package import Linux

/// What is closed to a VM whose interface `user` makes the hypervisor a client of the host's network:
/// this host's own services and its neighbours, which it would otherwise reach as any process does.
package struct Reach: Sendable, Equatable {
    package var filter: ReachFilter
    /// Words of `IPAddressAllow` that mean no address.
    package var unknown: [String] = []

    /// Nil where nothing is closed: without such an interface, without confinement, or where the
    /// VM's own `IPAddressAllow` opens everything; pure.
    package init?(of vm: VM) {
        guard vm.interfaces.contains(where: \.isUser) else { return nil }
        var allowed = ""
        switch vm.hardening.confine {
        case .off: return nil
        case .custom(let own): allowed = own["IPAddressAllow"] ?? ""
        default: break
        }
        // QEMU asks the host's name servers for the guest.
        filter = ReachFilter(
            closed: PrivateRanges.v4.map(ReachFilter.Range.init)
                + PrivateRanges.v6.map(ReachFilter.Range.init), port: 53)
        for word in allowed.split(whereSeparator: \.isWhitespace).map(String.init) {
            guard word != "any" else { return nil }
            if let ranges = Reach.ranges(word) {
                filter.open += ranges
            } else {
                unknown.append(word)
            }
        }
        // All addresses: what follows would never be come to.
        if filter.open.contains(where: { $0.prefix == 0 }) { return nil }
    }

    /// What a word of systemd's `IPAddressAllow` stands for.
    private static func ranges(_ word: String) -> [ReachFilter.Range]? {
        let names = [
            "localhost": ["127.0.0.0/8", "::1/128"], "link-local": ["169.254.0.0/16", "fe80::/64"],
            "multicast": ["224.0.0.0/4", "ff00::/8"],
        ]
        if let list = names[word] { return list.compactMap(range) }
        return range(word).map { [$0] }
    }

    private static func range(_ word: String) -> ReachFilter.Range? {
        let text = word.contains("/") ? word : word + (word.contains(":") ? "/128" : "/32")
        return CIDR(text).map(ReachFilter.Range.init) ?? CIDR6(text).map(ReachFilter.Range.init)
    }
}

extension ReachFilter.Range {
    fileprivate init(_ range: CIDR) {
        self.init(range.base.octets, prefix: range.prefix)
    }

    fileprivate init(_ range: CIDR6) {
        let octets = [range.base.high, range.base.low].flatMap { word in
            (0..<8).map { UInt8(truncatingIfNeeded: word >> (56 - 8 * $0)) }
        }
        self.init(octets, prefix: range.prefix)
    }
}

extension Engine {
    /// Closes to the processes of a group what is closed to a VM.
    ///
    /// Where the kernel does not do it, the VM starts all the same: it is a warning, and
    /// `status --security` says what it reaches.
    func closeReach(of vm: VM, in group: () throws -> String) {
        guard isRoot, let reach = Reach(of: vm) else { return }
        if !reach.unknown.isEmpty {
            let words = reach.unknown.joined(separator: " ")
            reporter.warning("\(vm.name): IPAddressAllow: no address, and left out: \(words)")
        }
        do {
            try reach.filter.attach(to: group())
        } catch {
            reporter.warning(
                "\(vm.name): its interface 'user' reaches this host's own services and private "
                    + "addresses: \(error)")
        }
    }
}
