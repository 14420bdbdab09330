// SPDX-License-Identifier: Apache-2.0
import Fleets
import Support
import Synchronization

/// Stands in for tailscaled: it keeps one list of routes for everybody, and changes it when asked.
final class Tailnet: Sendable {
    private final class Routes: Sendable {
        let all: Mutex<[String]>
        init(_ all: [String]) { self.all = Mutex(all) }
    }

    private let list: Routes
    private let server: LocalServer

    init(_ routes: String...) throws {
        let list = Routes(routes)
        self.list = list
        server = try LocalServer { request in
            if request.line.hasPrefix("PATCH /localapi/v0/prefs "),
                let change = try? JSONValue(parsing: request.body),
                change["AdvertiseRoutesSet"] == .bool(true)
            {
                let new = change["AdvertiseRoutes"]?.elements.compactMap(\.string) ?? []
                list.all.withLock { $0 = new }
            }
            let value: JSONValue = [
                "WantRunning": true,
                "AdvertiseRoutes": .array(list.all.withLock { $0 }.map { .string($0) }),
            ]
            return .ok(value.text())
        }
    }

    deinit { server.stop() }

    var socket: String { server.path }
    /// What is announced now; set it to be somebody else who changes it.
    var routes: [String] {
        get { list.all.withLock { $0 } }
        set { list.all.withLock { $0 = newValue } }
    }
    var changes: Int { server.requests.count { $0.line.hasPrefix("PATCH") } }
    var requests: Int { server.requests.count }
    func stop() { server.stop() }
}
