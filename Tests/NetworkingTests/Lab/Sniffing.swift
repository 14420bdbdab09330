// SPDX-License-Identifier: Apache-2.0
import Fleets
import Testing

/// An interface at which frames are looked for.
struct Place: Sendable, Hashable, ExpressibleByStringLiteral, CustomStringConvertible {
    let name: String
    let interface: String

    init(_ name: String, _ interface: String = "eth0") {
        self.name = name
        self.interface = interface
    }
    /// A guest or `lan`, at its `eth0`.
    init(stringLiteral name: String) { self.init(name) }

    /// What has left the host for the internet.
    static let internet = Place("wan", "host0")

    var description: String { interface == "eth0" ? name : "\(name) \(interface)" }
}

/// A recording of which markers come in at an interface, under way until `finish`.
struct Sniffer: Sendable {
    fileprivate let agent: Agent
    fileprivate let handle: JSONValue

    /// Stops when all expected markers were seen, or after so many milliseconds.
    ///
    /// The result is every marker seen, with the first frame that held it in hexadecimal digits.
    func finish(
        waitingFor expected: [String], milliseconds: Int
    ) async throws -> [String: String] {
        let answer = try await agent.request(
            "sniffed",
            [
                .init("handle", handle), .init("milliseconds", JSONValue(milliseconds)),
                .init("expected", .array(expected.map { .string(hexadecimal($0.utf8)) })),
            ])
        var seen: [String: String] = [:]
        for member in answer["seen"]?.members ?? [] {
            seen[text(member.key)] = member.value.string
        }
        return seen
    }

    private func text(_ digits: String) -> String {
        let all = Array(digits)
        let bytes = stride(from: 0, to: all.count - 1, by: 2).compactMap {
            UInt8(String(all[$0...$0 + 1]), radix: 16)
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// One row of a table of which frames a policy lets through, from one sender to one place.
struct FrameCheck: Sendable {
    let frame: Frame
    let passes: Bool
    let line: SourceLocation

    static func passes(_ frame: Frame, line: SourceLocation = #_sourceLocation) -> FrameCheck {
        FrameCheck(frame: frame, passes: true, line: line)
    }
    static func dropped(_ frame: Frame, line: SourceLocation = #_sourceLocation) -> FrameCheck {
        FrameCheck(frame: frame, passes: false, line: line)
    }
}

extension Lab {
    /// Records what comes in at a place with one of the markers in it, whatever the frame.
    ///
    /// A marker is a `Frame`'s, or any other text of printable characters.
    func sniff(at place: Place, for markers: [String]) async throws -> Sniffer {
        let agent = try agent(place.name)
        try await linksSettle(in: place.name)
        let answer = try await agent.request(
            "sniff",
            [
                .init("interface", .string(place.interface)),
                .init("markers", .array(markers.map { .string(hexadecimal($0.utf8)) })),
            ])
        guard let handle = answer["handle"] else { throw LabError("\(place): \(answer.text())") }
        return Sniffer(agent: agent, handle: handle)
    }

    /// Sends frames as they are, in their order.
    func send(from place: Place, _ frames: [Frame]) async throws {
        for name in Set([place.name, "host"]) { try await linksSettle(in: name) }
        _ = try await agent(place.name).request(
            "send",
            [
                .init("interface", .string(place.interface)),
                .init("frames", .array(frames.map(\.request))),
            ])
    }

    /// Sends frames and returns those that came in at a place, in the order sent.
    ///
    /// The expected ones have `Lab.patience`, the others at least `milliseconds`.
    func seen(
        _ frames: [Frame], from sender: Place, at place: Place, expecting expected: [Frame] = [],
        milliseconds: Int = 500
    ) async throws -> [Frame] {
        let sniffer = try await sniff(at: place, for: frames.map(\.marker))
        try await send(from: sender, frames)
        let isLong = expected.count < frames.count
        if isLong { try await Task.sleep(for: .milliseconds(milliseconds)) }
        let found = try await sniffer.finish(
            waitingFor: expected.map(\.marker), milliseconds: Lab.patience)
        return frames.filter { found[$0.marker] != nil }
    }

    /// Sends a table's frames and reports each that came in and should not have, or the reverse.
    ///
    /// A table of dropped frames alone would hold if nothing was sent at all: give each one a frame
    /// that passes. The result is whether all rows hold.
    @discardableResult
    func expect(
        _ checks: [FrameCheck], from sender: Place, at place: Place
    ) async throws -> Bool {
        let seen = try await seen(
            checks.map(\.frame), from: sender, at: place,
            expecting: checks.filter(\.passes).map(\.frame))
        let markers = Set(seen.map(\.marker))
        var holds = true
        for check in checks where markers.contains(check.frame.marker) != check.passes {
            holds = false
            Issue.record(
                "\(sender) to \(place): \(check.frame): expected \(check.passes ? "it" : "nothing") to arrive",
                sourceLocation: check.line)
        }
        return holds
    }
}
