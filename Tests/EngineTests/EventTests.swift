// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

@testable import Supervisor

@Suite(.serialized, .timeLimit(.minutes(20))) struct EventTests {
    @Test func eventsOutliveTheirVM() async throws {
        let world = try await World()
        try world.declare("web: {}, other: {}")
        try await world.must("up")
        try await world.must("stop", "web")
        let lines = try await world.must("events", "web").text.split(separator: "\n")
        #expect(
            lines.map { $0.split(separator: " ")[2] } == [
                "launched", "booted", "stopping", "ended",
            ])
        #expect(lines.allSatisfy { $0.split(separator: " ")[1] == "web" })
        let all = try await world.must("events", "--json").text.split(separator: "\n").map {
            try JSONValue(parsing: String($0))
        }
        #expect(Set(all.compactMap { $0["vm"]?.string }) == ["web", "other"])
        let times = all.compactMap { $0["at"]?.string }
        #expect(times == times.sorted() && times.count == 6)
        try await world.mustFail("events", "wbe", code: 66)
        try await world.must("purge", "web", "--yes")
        #expect(try await !world.must("events").text.contains("web"))
    }

    @Test func followingSeesWhatComesAndNewVMs() async throws {
        let world = try await World()
        try world.declare("web: {}")
        let out = try Pipe().split()
        let reader = Descriptor(owning: out.reader)
        try reader.setNonBlocking()
        var program = world.program(["events", "-f", "--json"])
        program.descriptors[1] = out.writer
        let follower = try program.spawn()
        close(out.writer)
        try await world.must("up")
        try await world.must("stop")
        var text = ""
        try await world.until("the end is reported") {
            text += String(decoding: (try? reader.read(65536)) ?? [], as: UTF8.self)
            return text.contains("\"ended\"")
        }
        follower.signal(SIGTERM)
        #expect(try await follower.wait() == .code(128 + SIGTERM))
        #expect(text.split(separator: "\n").count == 4)
    }

    @Test func aLogThatBeginsAnewIsReadOnAndGarbageIsSkipped() async throws {
        let world = try await World(image: false)
        let path = "\(world.folder)/events.jsonl"
        let log = try BoundedLog(path, limit: EventLog.limit)
        var reader = EventLog(vm: "web", path: path)
        #expect(reader.next() == [])
        func write(_ number: Int) {
            let event = VMEvent(vm: "liar", at: Int64(number), kind: .booted, detail: nil)
            log.append(Array((event.wire.text() + "\n").utf8))
        }
        for number in 0..<100 { write(number) }
        log.append(Array("garbage\n{}\n".utf8))
        #expect(reader.next().map(\.at) == Array(0..<100))
        #expect(reader.next() == [])
        var seen: [VMEvent] = []
        for number in 100..<20_000 {
            write(number)
            if number % 500 == 0 { seen += reader.next() }
        }
        seen += reader.next()
        #expect(seen.map(\.at) == Array(100..<20_000))
        #expect(seen.allSatisfy { $0.vm == "web" })
        #expect(try Files.status(path).size <= EventLog.limit)
    }
}
