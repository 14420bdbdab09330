// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Networking

@Suite(.timeLimit(.minutes(20))) struct TailscaleTests {
    private static func preferences(_ routes: [String]) -> String {
        let value: JSONValue = [
            "ControlURL": "https://login.example", "WantRunning": true,
            "AdvertiseRoutes": .array(routes.map { .string($0) }), "NoSNAT": false,
        ]
        return value.text()
    }

    private func advertise(
        _ server: LocalServer, ours: [String] = ["10.1.0.0/24"], previously: [String] = []
    ) async throws -> [String]? {
        try await blocking {
            try Tailscale(socket: server.path).advertise(ours: ours, previously: previously)
        }
    }

    @Test func routesAreAddedAndForeignOnesStay() async throws {
        let all = ["192.168.7.0/24", "::/0", "10.1.0.0/24", "fd00:1::/64"]
        let server = try LocalServer(
            .ok(Self.preferences(["192.168.7.0/24", "::/0"])), .ok(Self.preferences(all)))
        let result = try await advertise(server, ours: ["10.1.0.0/24", "fd00:1::/64"])
        #expect(result == all)
        let requests = server.requests
        try #require(requests.count == 2)
        #expect(requests[0].line == "GET /localapi/v0/prefs HTTP/1.1")
        #expect(requests[0].body.isEmpty)
        #expect(requests[1].line == "PATCH /localapi/v0/prefs HTTP/1.1")
        #expect(requests.allSatisfy { $0.fields["host"] == "local-tailscaled.sock" })
        let change: JSONValue = [
            "AdvertiseRoutes": .array(all.map { .string($0) }), "AdvertiseRoutesSet": true,
        ]
        #expect(requests[1].fields["content-length"] == "\(requests[1].body.utf8.count)")
        #expect(try JSONValue(parsing: requests[1].body) == change)
    }

    @Test func oursThatAreGoneAreRemoved() async throws {
        let server = try LocalServer(
            .ok(Self.preferences(["10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"])),
            .ok(Self.preferences(["10.1.0.0/24", "10.3.0.0/24"])))
        let previously = ["10.1.0.0/24", "10.2.0.0/24"]
        #expect(
            try await advertise(server, previously: previously) == ["10.1.0.0/24", "10.3.0.0/24"])
        let body = try JSONValue(parsing: try #require(server.requests.last).body)
        #expect(body["AdvertiseRoutes"]?.elements == ["10.1.0.0/24", "10.3.0.0/24"])
    }

    @Test(
        arguments: [
            // current, ours, previously, wanted
            ([], [], [], []),
            (["a"], [], [], ["a"]),
            (["10.1.0.0/24"], ["10.1.0.0/24"], [], ["10.1.0.0/24"]),
            (["10.1.0.0/24"], [], ["10.1.0.0/24"], []),
            (["0.0.0.0/0", "::/0"], [], ["0.0.0.0/0", "::/0"], ["0.0.0.0/0", "::/0"]),
            (["fd00::/64"], ["FD00:0::/64"], [], ["fd00::/64"]),
            (["fd00::/64"], [], ["FD00:0:0::/64"], []),
            (
                ["x", "10.1.0.0/24", "y"], ["10.2.0.0/24"], ["10.1.0.0/24"],
                ["x", "y", "10.2.0.0/24"]
            ),
            ([], ["10.2.0.0/24", "10.2.0.0/24"], [], ["10.2.0.0/24"]),
        ] as [([String], [String], [String], [String])])
    func listsAreMerged(
        current: [String], ours: [String], previously: [String], wanted: [String]
    ) {
        #expect(Tailscale.merge(current, ours: ours, previously: previously) == wanted)
    }

    @Test(arguments: [
        preferences(["fd00:1::/64", "10.1.0.0/24"]),
        // Another order and another spelling are no change.
        preferences(["10.1.0.0/24", "FD00:1:0::/64"]),
    ])
    func nothingIsSentWhenNothingChanges(text: String) async throws {
        let server = try LocalServer(.ok(text), .status("500 Unexpected", ""))
        #expect(try await advertise(server, ours: ["10.1.0.0/24", "fd00:1::/64"]) == nil)
        #expect(server.requests.map(\.line) == ["GET /localapi/v0/prefs HTTP/1.1"])
    }

    @Test func noRoutesYetAreNull() async throws {
        let server = try LocalServer(
            .ok(#"{"AdvertiseRoutes":null}"#), .ok(Self.preferences(["10.1.0.0/24"])))
        #expect(try await advertise(server) == ["10.1.0.0/24"])
    }

    @Test func aReplyInChunksIsPutTogether() async throws {
        let text = Self.preferences(["10.1.0.0/24"])
        let (front, back) = (text.prefix(7), text.dropFirst(7))
        let server = try LocalServer(
            .bytes(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7;x=y\r\n\(front)\r\n"
                    + String(back.utf8.count, radix: 16) + "\r\n\(back)\r\n0\r\nTrailer: 1\r\n\r\n"
            ))
        #expect(try await advertise(server) == nil)
    }

    @Test(arguments: [
        ("403 Forbidden", "prefs write access denied\n", "operator"),
        ("401 Unauthorized", "", "operator"),
        ("400 Bad Request", #"{"error":"bad prefix"}"#, "400: bad prefix"),
        ("500 Internal Server Error", "", "500: no reason given"),
    ])
    func aRefusalSaysWhatToDo(status: String, body: String, says: String) async throws {
        let server = try LocalServer(.ok(Self.preferences([])), .status(status, body))
        await #expect {
            try await advertise(server)
        } throws: {
            $0 is TailscaleError && "\($0)".contains(says)
        }
    }

    @Test(arguments: [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        "HTTP/1.1 200 OK\r\n\r\n{\"AdvertiseRoutes\":7}",
        "HTTP/1.1 200 OK\r\n\r\n{\"AdvertiseRoutes\":[7]}",
        "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", "SSH-2.0-OpenSSH\r\n\r\n", "",
    ])
    func whatIsNoAnswerIsAnError(reply: String) async throws {
        let server = try LocalServer(.bytes(reply))
        await #expect {
            try await advertise(server)
        } throws: {
            if case .garbled = $0 as? TailscaleError { true } else { false }
        }
    }

    @Test func aChangeThatIsNotTakenIsAnError() async throws {
        let server = try LocalServer(.ok(Self.preferences([])), .ok(Self.preferences([])))
        await #expect(throws: TailscaleError.ignored(["10.1.0.0/24"])) {
            try await advertise(server)
        }
    }

    @Test(arguments: ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"])
    func aServerThatHangsIsATimeout(sent: String) async throws {
        let server = try LocalServer(.hang(sent))
        await #expect(throws: TailscaleError.timeout(server.path)) {
            try await blocking {
                try Tailscale(socket: server.path, timeout: 0.2).advertise(
                    ours: ["10.1.0.0/24"], previously: [])
            }
        }
    }

    @Test func aServerThatAcceptsNobodyIsATimeout() async throws {
        let server = try LocalServer()
        // The queue of a listener is full at some point; connecting would wait from then on.
        var waiting: [Waiting] = []
        while waiting.count < 1000,
            let socket = try? UnixSocket.connect(server.path, timeout: 0.05)
        {
            waiting.append(Waiting(socket))
        }
        try #require(waiting.count < 1000)
        await #expect(throws: TailscaleError.timeout(server.path)) {
            try await blocking {
                try Tailscale(socket: server.path, timeout: 0.2).advertise(
                    ours: ["10.1.0.0/24"], previously: [])
            }
        }
        withExtendedLifetime((waiting, server)) {}
    }

    private final class Waiting {
        let socket: Descriptor
        init(_ socket: consuming Descriptor) { self.socket = socket }
    }

    @Test func withoutADaemonTheErrorNamesTheSocket() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/daemon.sock"
        let attempt = { try Tailscale(socket: path).advertise(ours: [], previously: []) }
        #expect(throws: TailscaleError.notRunning(path)) { _ = try attempt() }
        // The socket of a daemon that is gone: nobody listens on it any more.
        _ = try UnixSocket.listen(path)
        #expect(throws: TailscaleError.notRunning(path)) { _ = try attempt() }
        #expect("\(TailscaleError.notRunning(path))".contains(path))
    }

    @Test(arguments: [
        ("HTTP/1.1 200 OK\r\n\r\n", nil as Int?), ("HTTP/1.1 204 No\r\n\r\n", 204),
        ("HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n", 201),
        ("HTTP/1.0 200 OK\nContent-Length: 1\n\nx", 200), ("HTTP/1.1 200 OK\r\n", nil),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", nil),
    ])
    func aReplyIsReadWhenItIsWhole(text: String, status: Int?) throws {
        #expect(try HTTPReply(parsing: Array(text.utf8), isWhole: false)?.status == status)
    }

    @Test(arguments: [
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n",
        "HTTP/2 200\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nno field\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx",
    ])
    func aReplyThatCannotBeWholeIsAnError(text: String) {
        #expect(throws: HTTPError.self) {
            _ = try HTTPReply(parsing: Array(text.utf8), isWhole: true)
        }
    }

    @Test func aReplyWithoutAnEndIsNotTaken() async throws {
        let server = try LocalServer(
            .hang("HTTP/1.1 200 OK\r\n" + String(repeating: "x: y\r\n", count: 20_000)))
        await #expect {
            try await advertise(server)
        } throws: {
            if case .garbled = $0 as? TailscaleError { true } else { false }
        }
    }
}
