// SPDX-License-Identifier: Apache-2.0
import Fleets

/// What a rule of somebody else's firewall does with a packet, as far as that can be said for sure.
struct FirewallRule {
    /// On which side of the host a packet has the bridge.
    enum End: String { case input = "iifname", output = "oifname" }
    enum Verdict { case accept, drop }

    /// As much of a packet as is known; whatever else a rule asks of it may be so or not.
    struct Packet {
        var link: String
        var end: End
        /// Whose addresses it may come from (`input`) or go to (`output`).
        var subnet: CIDR?
        /// Where on this host it goes by UDP.
        var port: Int64?
    }

    private enum Action { case accept, drop, jump(String), goto(String), leave, none }
    private var action = Action.none
    private var conditions: [JSONValue] = []

    init(_ expressions: [JSONValue]) {
        for expression in expressions {
            guard let name = expression.members.first?.key else { continue }
            let target = expression[name]?["target"]?.string ?? ""
            switch name {
            case "match": conditions.append(expression["match"] ?? .null)
            case "accept": action = .accept
            case "drop", "reject": action = .drop
            case "return": action = .leave
            case "jump": action = .jump(target)
            case "goto": action = .goto(target)
            case "counter", "log": break
            // A limit, a lookup, a module of iptables: it holds for some packets only.
            default: conditions.append(.null)
            }
        }
    }

    /// What happens to a packet in a chain; nil when no rule decides for sure.
    ///
    /// A rule that may hold or not is passed over: what it accepts or drops is but a part.
    static func judge(
        _ packet: Packet, _ chain: String, _ rules: [String: [FirewallRule]], depth: Int = 0
    ) -> Verdict? {
        // The kernel takes no loops, and no more than 16 jumps.
        guard depth <= 16 else { return nil }
        for rule in rules[chain] ?? [] where rule.conditions.allSatisfy({ holds($0, for: packet) })
        {
            switch rule.action {
            case .accept: return .accept
            case .drop: return .drop
            case .leave: return nil
            case .jump(let target):
                if let verdict = judge(packet, target, rules, depth: depth + 1) { return verdict }
            case .goto(let target): return judge(packet, target, rules, depth: depth + 1)
            case .none: break
            }
        }
        return nil
    }

    /// Whether a condition holds for sure.
    private static func holds(_ match: JSONValue, for packet: Packet) -> Bool {
        guard let left = match["left"], let right = match["right"],
            let op = match["op"]?.string, ["==", "!="].contains(op)
        else { return false }
        let values = right["set"]?.elements ?? [right]
        guard let isIn = matches(left, values, packet) else { return false }
        return isIn == (op == "==")
    }

    /// Whether the packet has one of the values; nil when that is not known.
    private static func matches(
        _ left: JSONValue, _ values: [JSONValue], _ packet: Packet
    ) -> Bool? {
        let field = left["payload"]?["field"]?.string
        if let key = left["meta"]?["key"]?.string {
            if key == packet.end.rawValue {
                return values.contains { covers($0.string ?? "", packet.link) }
            }
            if key == "l4proto", packet.port != nil { return isUDP(values) }
            return nil
        }
        switch (left["payload"]?["protocol"]?.string, field) {
        case ("udp", "dport"), ("th", "dport"):
            guard let port = packet.port else { return nil }
            return values.contains { covers($0, port) }
        case ("ip", "protocol"): return packet.port != nil ? isUDP(values) : nil
        case ("ip", "saddr") where packet.end == .input,
            ("ip", "daddr") where packet.end == .output:
            guard let subnet = packet.subnet else { return nil }
            return values.contains { covers($0, subnet) } ? true : nil
        default: return nil
        }
    }

    private static func isUDP(_ values: [JSONValue]) -> Bool {
        values.contains { $0.string == "udp" || $0.integer == 17 }
    }

    private static func covers(_ pattern: String, _ link: String) -> Bool {
        pattern.hasSuffix("*") ? link.hasPrefix(pattern.dropLast()) : pattern == link
    }

    private static func covers(_ value: JSONValue, _ port: Int64) -> Bool {
        if let ends = value["range"]?.elements.compactMap(\.integer), ends.count == 2 {
            return ends[0] <= port && port <= ends[1]
        }
        return value.integer == port
    }

    private static func covers(_ value: JSONValue, _ subnet: CIDR) -> Bool {
        guard let prefix = value["prefix"], let address = prefix["addr"]?.string,
            let length = prefix["len"]?.integer, let network = CIDR("\(address)/\(length)")
        else { return false }
        return network.prefix <= subnet.prefix && network.overlaps(subnet)
    }
}
