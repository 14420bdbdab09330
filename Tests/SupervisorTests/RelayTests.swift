// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Supervisor

@Suite(.timeLimit(.minutes(20))) struct RelayTests {
    private static func pattern(_ count: Int, _ seed: UInt32) -> [UInt8] {
        var state = seed
        return (0..<count).map { _ in
            state = state &* 1_664_525 &+ 1_013_904_223
            return UInt8(truncatingIfNeeded: state >> 24)
        }
    }

    private static func exchange(_ socket: Socket, _ bytes: [UInt8]) async throws -> [UInt8] {
        async let sent: Void = blocking {
            try socket.write(bytes)
            socket.finish()
        }
        let received = try await blocking { try socket.readToEnd() }
        try await sent
        return received
    }

    @Test func megabytesGoBothWaysAtOnce() async throws {
        let rig = try RelayRig(.tcp)
        let client = try rig.client()
        let target = try rig.accept()
        let (there, back) = (Self.pattern(6_000_001, 1), Self.pattern(5_000_003, 2))
        async let atTarget = Self.exchange(target, back)
        let atClient = try await Self.exchange(client, there)
        #expect(atClient == back)
        #expect(try await atTarget == there)
    }

    @Test func anAnswerComesAfterTheEndOfTheQuestion() async throws {
        try await blocking {
            let rig = try RelayRig(.tcp)
            let client = try rig.client()
            try client.write("question")
            client.finish()
            let target = try rig.accept()
            #expect(try target.readToEnd() == Array("question".utf8))
            try target.write("answer")
            #expect(try client.read() == Array("answer".utf8))
            target.finish()
            #expect(try client.read().isEmpty)
            try rig.until("the connection is closed") { try rig.descriptors <= 8 }
        }
    }

    @Test func aSlowTargetHoldsItsClientBack() async throws {
        try await blocking {
            let rig = try RelayRig(.tcp)
            let client = try rig.client()
            let target = try rig.accept()
            let chunk = Self.pattern(1 << 20, 3)
            var sent = 0
            var one = pollfd(fd: client.raw, events: Int16(POLLOUT), revents: 0)
            while sent < 256 << 20, poll(&one, 1, 2000) > 0 {
                let flags = Int32(MSG_NOSIGNAL | MSG_DONTWAIT)
                sent += max(0, send(client.raw, chunk, chunk.count, flags))
            }
            // What the kernel's own buffers hold, and no more.
            #expect(sent < 64 << 20)
            client.finish()
            #expect(try target.readToEnd().count == sent)
        }
    }

    @Test func aTargetThatRefusesIsAResetForTheClient() async throws {
        try await blocking {
            let rig = try RelayRig(.tcp)
            rig.target = nil
            let client = try rig.client()
            #expect { try client.read() } throws: { ($0 as? SystemError)?.code == ECONNRESET }
        }
    }

    @Test(arguments: [true, false]) func aResetIsPassedOn(fromTarget: Bool) async throws {
        try await blocking {
            let rig = try RelayRig(.tcp)
            let client = try rig.client()
            let target = try rig.accept()
            (fromTarget ? target : client).reset()
            let other = fromTarget ? client : target
            #expect { try other.read() } throws: { ($0 as? SystemError)?.code == ECONNRESET }
        }
    }

    @Test func twoHundredConnectionsKeepTheirBytesApart() async throws {
        try await blocking {
            let rig = try RelayRig(.tcp)
            let clients = try (0..<200).map { _ in try rig.client() }
            for (number, client) in clients.enumerated() { try client.write("client \(number)") }
            let targets = try (0..<200).map { _ in try rig.accept() }
            for target in targets { try target.write("for " + target.readText()) }
            for (number, client) in clients.enumerated() {
                #expect(try client.readText() == "for client \(number)")
            }
        }
    }

    @Test func clientsWaitWhileThereAreNoDescriptors() async throws {
        try await blocking {
            let rig = try RelayRig(.tcp, descriptors: 24)
            var clients = try (0..<30).map { _ in try rig.client() }
            for client in clients { try client.write("x") }
            try rig.until("the descriptors are used up") { try rig.descriptors >= 23 }
            let before = try ticks(rig.relay.pid)
            usleep(2_000_000)
            // Two seconds of spinning are 200 of these.
            #expect(try ticks(rig.relay.pid) - before < 20)
            // In the order of the queue: each that goes makes room for the next one.
            while !clients.isEmpty {
                let target = try rig.accept()
                let client = clients.removeFirst()
                try target.write("for " + target.readText())
                #expect(try client.readText() == "for x")
            }
        }
    }

    @Test func aDatagramsAnswerComesFromWhereItWasSentTo() async throws {
        try await blocking {
            let rig = try RelayRig(.udp)
            let target = try #require(rig.target)
            // Not connected: they would see an answer from anywhere else.
            let clients = try (0..<2).map { _ in try Socket(.udp, at: .loopback6(0)) }
            try clients[0].send("first", to: rig.front)
            let first = try target.receive()
            try clients[1].send("", to: rig.front)
            let second = try target.receive()
            #expect(first.text == "first" && second.text.isEmpty && first.from != second.from)
            try target.send("for second", to: second.from)
            try target.send("for first", to: first.from)
            try target.send("more", to: first.from)
            #expect(try clients[0].receive() == ("for first", rig.front))
            #expect(try clients[0].receive() == ("more", rig.front))
            #expect(try clients[1].receive() == ("for second", rig.front))
        }
    }

    @Test func aDatagramReachesATargetThatComesLate() async throws {
        try await blocking {
            let rig = try RelayRig(.udp)
            rig.target = nil
            let client = try rig.client()
            let idle = try rig.descriptors
            try client.send("lost")
            try rig.until("the relay has a session") { try rig.descriptors > idle }
            try rig.reopenTarget()
            try client.send("found")
            let target = try #require(rig.target)
            // The first one may have come late as well.
            var text = try target.receive().text
            if text == "lost" { text = try target.receive().text }
            #expect(text == "found")
        }
    }

    @Test func anIdleClientOfUDPIsForgotten() async throws {
        try await blocking {
            let rig = try RelayRig(.udp, idle: 0.3)
            let target = try #require(rig.target)
            let client = try rig.client()
            try client.send("one")
            _ = try target.receive()
            let other = try rig.client()
            try other.send("two")
            let (_, from) = try target.receive()
            try rig.until("both are forgotten") { try sessions(rig) == 0 }
            // Nobody is there to take an answer, and the next datagram starts anew.
            try target.send("late", to: from)
            try client.send("three")
            #expect(try target.receive().text == "three")
        }
    }

    @Test func theOldestClientOfUDPGoesWhenThereAreTooMany() async throws {
        try await blocking {
            let rig = try RelayRig(.udp, sessions: 2)
            let target = try #require(rig.target)
            let clients = try (0..<4).map { _ in try rig.client() }
            for client in clients {
                try client.send("hello")
                let (_, from) = try target.receive()
                try target.send("welcome", to: from)
                #expect(try client.readText() == "welcome")
                #expect(try sessions(rig) <= 2)
            }
            #expect(try sessions(rig) == 2)
        }
    }

    @Test func theRelayEndsWithTheProcessThatItWatches() async throws {
        let rig = try RelayRig(.tcp)
        let client = try rig.client()
        let target = try rig.accept()
        rig.endWatched()
        #expect(try await rig.end() == .code(0))
        withExtendedLifetime((client, target)) {}
    }

    @Test(arguments: [SIGTERM, SIGINT]) func aSignalEndsTheRelay(signal: Int32) async throws {
        let rig = try RelayRig(.tcp)
        // Served once: from then on its signals are its own.
        let client = try rig.client()
        let target = try rig.accept()
        rig.relay.signal(signal)
        #expect(try await rig.end() == .code(0))
        withExtendedLifetime((client, target)) {}
    }

    @Test(arguments: [TransportProtocol.tcp, .udp])
    func aPortIsListenedOnOnceAndForIPv6Alone(transport: TransportProtocol) async throws {
        try await blocking {
            // Where nobody else has the port of IPv4.
            try enterNewNetwork()
            let first = try Relay.listen(transport, at: .loopback6(0))
            let port = try InetSocket.address(of: first.raw).port
            #expect(throws: SystemError("bind port \(port)", EADDRINUSE)) {
                _ = try Relay.listen(transport, at: .loopback6(port))
            }
            _ = try Socket(transport, at: .loopback4(port))
            withExtendedLifetime(first) {}
        }
    }

    /// Clock ticks of processor time that a process has used.
    private func ticks(_ pid: Int32) throws -> Int {
        let fields = try Files.readText("/proc/\(pid)/stat").split(separator: " ")
        return try #require(Int(fields[13])) + #require(Int(fields[14]))
    }

    /// The relay's UDP sockets, without the one that it inherited.
    private func sessions(_ rig: RelayRig) throws -> Int {
        let folder = "/proc/\(rig.relay.pid)/fd"
        let links = try Files.list(folder).compactMap { try? Files.readLink("\(folder)/\($0)") }
        return links.filter { $0.hasPrefix("socket:") }.count - 1
    }
}
