// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// Bounds how fast a VM receives and sends, by tc.
///
/// What it receives waits in a queue of its tap. What it sends cannot wait there, so it is turned
/// through a device of its own; the kernel's policers would drop it instead, and TCP suffers.
struct Shaper {
    private let port: Segment.Port
    private let owner: Owner
    private let folder: String
    private let turn: String

    init(_ port: Segment.Port, _ owner: Owner, _ folder: String) {
        self.port = port
        self.owner = owner
        self.folder = folder
        turn = Derived.shaper(tap: port.tap)
    }

    /// Makes the limits of a tap as they are declared; does nothing when they are so already.
    func apply(_ links: [Link], _ socket: borrowing RouteSocket) throws {
        let device = links.first { $0.name == turn }
        // The device's alias says what the limit is: there is no other record of it.
        let alias = port.limit.map { owner.alias("limit", port.vm, String($0.bitsPerSecond)) }
        if let alias, device?.alias == alias { return }
        if alias == nil, device == nil { return }
        if let device {
            try owner.checkOwned(device)
            try socket.delete(device.index)
            try tc(
                "qdisc del dev \(port.tap) root\nqdisc del dev \(port.tap) clsact\n", force: true)
        }
        guard let limit = port.limit, let alias else { return }
        let index = try socket.addIFB(turn, alias: "", group: Owner.group)
        try socket.set(index, LinkChanges(isUp: true, withoutLinkLocal: true))
        try tc(commands(limit))
        // Last, so that a run which was killed before does it all again.
        try socket.set(index, LinkChanges(alias: alias))
    }

    /// The commands of `tc -batch`; pure.
    func commands(_ limit: BitRate) -> String {
        let rate = "\(limit.bitsPerSecond)bit"
        // A burst of what passes in 10 ms, and never less than a few frames.
        let burst = max(16_000, limit.bitsPerSecond / 800)
        func bound(_ device: String) -> String {
            """
            qdisc add dev \(device) root handle 1: htb default 1
            class add dev \(device) parent 1: classid 1:1 htb rate \(rate) ceil \(rate) burst \(burst)b cburst \(burst)b

            """
        }
        return bound(port.tap) + bound(turn) + """
            qdisc add dev \(port.tap) clsact
            filter add dev \(port.tap) ingress protocol all u32 match u32 0 0 action mirred egress redirect dev \(turn)

            """
    }

    private func tc(_ commands: String, force: Bool = false) throws {
        guard let path = findProgram("tc") else {
            throw NetworkError.missingTool(name: "tc", package: "iproute2")
        }
        let batch = "\(folder)/\(turn).tc"
        try Files.write(batch, commands)
        let log = try Descriptor.open("\(batch).log", O_RDWR | O_CREAT | O_TRUNC)
        var program = Program(path, (force ? ["-force"] : []) + ["-batch", batch])
        program.descriptors = [1: log.raw, 2: log.raw]
        let exit = try program.spawn().waitBlocking()
        let said = try Files.readText("\(batch).log")
        try Files.remove(batch)
        try Files.remove("\(batch).log")
        guard exit.isSuccess || force else {
            throw NetworkError.failed(
                what: "the limit of \(port.vm) on \(port.tap)",
                reason: said.split(separator: "\n").first.map(String.init) ?? "tc: \(exit)")
        }
    }
}
