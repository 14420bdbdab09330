// SPDX-License-Identifier: Apache-2.0
import Fleets
import Testing

/// Something that one peer tries to reach.
struct Probe: Sendable, CustomStringConvertible {
    fileprivate enum Kind: String { case tcp, udp, ping, dns }
    fileprivate let kind: Kind
    fileprivate let address: String
    fileprivate let port: Int
    fileprivate var source: String?
    fileprivate var sourcePort: Int?
    fileprivate var name: String?

    /// Connects and reads the server's answer.
    static func tcp(_ address: String, _ port: Int) -> Probe {
        Probe(kind: .tcp, address: address, port: port)
    }
    /// Sends datagrams until the server answers one.
    static func udp(_ address: String, _ port: Int) -> Probe {
        Probe(kind: .udp, address: address, port: port)
    }
    /// An ICMP echo of the address's family; `fe80::1%eth0` names a neighbour.
    static func ping(_ address: String) -> Probe {
        Probe(kind: .ping, address: address, port: 0)
    }

    /// Asks a DNS server for a name's IPv4 address, or its IPv6 address where the name ends in `/6`.
    ///
    /// It is open `by` the address that the answer holds, and rejected where there is none.
    static func dns(_ server: String, _ name: String) -> Probe {
        Probe(kind: .dns, address: server, port: 53, name: name)
    }

    /// The same from one of the sender's addresses, or from a port.
    func from(_ source: String? = nil, port: Int? = nil) -> Probe {
        var copy = self
        copy.source = source
        copy.sourcePort = port
        return copy
    }

    var description: String {
        let target =
            kind == .ping ? address : "\(address) port \(port)" + (name.map { " for \($0)" } ?? "")
        let source = [source, sourcePort.map { "port \($0)" }].compactMap { $0 }
        return "\(kind.rawValue) \(target)"
            + (source.isEmpty ? "" : " from \(source.joined(separator: " "))")
    }

    fileprivate func request(milliseconds: Int, retry: Bool) -> JSONValue {
        var all: [JSONValue.Member] = [
            .init("kind", .string(kind.rawValue)), .init("to", .string(address)),
            .init("port", JSONValue(port)), .init("milliseconds", JSONValue(milliseconds)),
            .init("retry", retry ? 1 : 0),
        ]
        if let source { all.append(.init("from", .string(source))) }
        if let name { all.append(.init("name", .string(name))) }
        if let sourcePort { all.append(.init("sport", JSONValue(sourcePort))) }
        return .object(all)
    }
}

/// What came of a probe.
enum Outcome: Sendable, Equatable, CustomStringConvertible {
    /// A server answered: its name, and the sender's address as it saw it.
    case answer(by: String, seenAs: String)
    case echo
    case refused
    case reset
    case timeout
    /// The network, or a filter on the way, said no.
    case unreachable
    /// The sender could not even try.
    case error(String)

    fileprivate init(_ answer: JSONValue) {
        switch answer["outcome"]?.string {
        case "answer":
            self = .answer(
                by: answer["by"]?.string ?? "", seenAs: answer["seen"]?.string ?? "")
        case "echo": self = .echo
        case "refused": self = .refused
        case "reset": self = .reset
        case "timeout": self = .timeout
        case "unreachable": self = .unreachable
        default: self = .error(answer["reason"]?.string ?? answer.text())
        }
    }

    /// Whether anything came back from the one who was asked for.
    var isOpen: Bool {
        switch self {
        case .answer, .echo: true
        default: false
        }
    }

    var description: String {
        switch self {
        case .answer(let name, let source): "answer by \(name), which saw \(source)"
        case .error(let reason): "error: \(reason)"
        case .echo: "echo"
        case .refused: "refused"
        case .reset: "reset"
        case .timeout: "timeout"
        case .unreachable: "unreachable"
        }
    }
}

/// What a probe should come to.
enum Expectation: Sendable, CustomStringConvertible {
    /// Something answers; where given, this peer, and it saw this source address.
    case open(by: String? = nil, seenAs: String? = nil)
    /// Nothing comes back.
    case dropped
    /// Somebody says no: a port without a server, or a filter that rejects.
    case rejected
    /// Dropped or rejected: for what must not be reached, however.
    case closed

    static var open: Expectation { .open() }

    func isMet(by outcome: Outcome) -> Bool {
        switch (self, outcome) {
        case (.open(let by, let seen), .answer(let name, let source)):
            (by ?? name) == name && (seen ?? source) == source
        case (.open(by: nil, seenAs: nil), .echo): true
        case (.dropped, .timeout), (.closed, .timeout): true
        case (.rejected, .refused), (.closed, .refused): true
        case (.rejected, .unreachable), (.closed, .unreachable): true
        case (.rejected, .reset), (.closed, .reset): true
        default: false
        }
    }

    /// Whether it pays to try again: what should be open may take a moment.
    fileprivate var isTriedAgain: Bool { if case .open = self { true } else { false } }

    /// How long to wait, in milliseconds, for something that comes back.
    fileprivate var milliseconds: Int {
        switch self {
        case .open, .rejected: Lab.patience
        case .dropped, .closed: 1000
        }
    }

    var description: String {
        switch self {
        case .open(let by, let seen):
            (["open"] + [by.map { "by \($0)" }, seen.map { "seen as \($0)" }].compactMap { $0 })
                .joined(separator: " ")
        case .dropped: "dropped"
        case .rejected: "rejected"
        case .closed: "closed"
        }
    }
}

/// One row of a table of what is open to whom; a failure is reported at its line.
struct Check: Sendable {
    let from: String
    let probe: Probe
    let expectation: Expectation
    let line: SourceLocation

    init(
        _ from: String, _ probe: Probe, _ expectation: Expectation,
        line: SourceLocation = #_sourceLocation
    ) {
        self.from = from
        self.probe = probe
        self.expectation = expectation
        self.line = line
    }
}

extension Lab {
    /// Probes all at once, so that any number of silences costs one timeout.
    ///
    /// With `retry`, what fails is tried again until its time is over.
    func probe(
        from name: String, _ probes: [Probe], milliseconds: Int = 1000, retry: Bool = false
    ) async throws -> [Outcome] {
        try await ask(
            name, probes.map { $0.request(milliseconds: milliseconds, retry: retry) })
    }

    /// Probes and reports each row that did not come to what it should, at its own line.
    ///
    /// Open ones are tried again until `Lab.patience` is over, and a rejection may take as long; the
    /// others have one second and one try. The result is whether all rows hold.
    @discardableResult
    func expect(_ checks: [Check]) async throws -> Bool {
        let misses = try await misses(checks)
        for (check, outcome) in misses {
            Issue.record(
                "\(check.from): \(check.probe): expected \(check.expectation), got \(outcome)",
                sourceLocation: check.line)
        }
        return misses.isEmpty
    }

    /// The rows that did not come to what they should, with what they came to.
    func misses(_ checks: [Check]) async throws -> [(check: Check, outcome: Outcome)] {
        let groups = Dictionary(grouping: checks.indices) { checks[$0].from }
        let outcomes = try await withThrowingTaskGroup { group in
            for (name, indices) in groups {
                group.addTask { [self] in
                    let requests = indices.map {
                        let expectation = checks[$0].expectation
                        return checks[$0].probe.request(
                            milliseconds: expectation.milliseconds,
                            retry: expectation.isTriedAgain)
                    }
                    return Array(zip(indices, try await ask(name, requests)))
                }
            }
            return try await group.reduce(into: [Int: Outcome]()) { all, some in
                for (index, outcome) in some { all[index] = outcome }
            }
        }
        return checks.indices.compactMap { index in
            let outcome = outcomes[index] ?? .error("no answer")
            return checks[index].expectation.isMet(by: outcome) ? nil : (checks[index], outcome)
        }
    }

    private func ask(_ name: String, _ probes: [JSONValue]) async throws -> [Outcome] {
        let answer = try await agent(name).request("probe", [.init("probes", .array(probes))])
        let results = answer["results"]?.elements ?? []
        guard results.count == probes.count else { throw LabError("\(name): \(answer.text())") }
        return results.map { Outcome($0) }
    }

    /// Opens a TCP connection that stays, to see later whether it still lives.
    func connect(from name: String, to address: String, _ port: Int) async throws -> Connection {
        let agent = try agent(name)
        let answer = try await agent.request(
            "open",
            [
                .init("to", .string(address)), .init("port", JSONValue(port)),
                .init("milliseconds", JSONValue(Lab.patience)),
            ])
        guard let handle = answer["handle"] else {
            throw LabError("\(name): tcp \(address) port \(port): \(Outcome(answer))")
        }
        return Connection(agent: agent, handle: handle, first: Outcome(answer))
    }
}

/// A TCP connection that a peer keeps open.
struct Connection: Sendable {
    fileprivate let agent: Agent
    fileprivate let handle: JSONValue
    /// What the server said first.
    let first: Outcome

    /// Says something and waits for the server's answer; a connection that is cut times out.
    func say(milliseconds: Int = 1000) async throws -> Outcome {
        Outcome(
            try await agent.request(
                "say",
                [.init("handle", handle), .init("milliseconds", JSONValue(milliseconds))]))
    }

    func close() async throws { _ = try await agent.request("close", [.init("handle", handle)]) }
}
