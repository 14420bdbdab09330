// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
package import Linux

/// Why Tailscale does not announce our routes.
package enum TailscaleError: Error, Equatable, CustomStringConvertible {
    /// Nothing listens on the socket.
    case notRunning(String)
    /// This user may not read or change the preferences; what tailscaled said.
    case notAllowed(String)
    case refused(status: Int, String)
    case timeout(String)
    /// The answer is not what tailscaled answers.
    case garbled(String)
    /// tailscaled took the change and lists something else.
    case ignored([String])
    case system(SystemError)

    package var description: String {
        switch self {
        case .notRunning(let path):
            "tailscaled does not run: nothing listens on \(path); start it "
                + "(systemctl start tailscaled) or take `advertise` out of the fleet file"
        case .notAllowed(let reason):
            "tailscaled refuses this user (\(reason)); run martlet as root or make the user its "
                + "operator (tailscale set --operator=USER)"
        case .refused(let status, let reason): "tailscaled answered \(status): \(reason)"
        case .timeout(let path):
            "tailscaled on \(path) did not answer in time; see its journal, and restart it"
        case .garbled(let what):
            "tailscaled answered what martlet does not understand: \(what); is it another version?"
        case .ignored(let routes):
            "tailscaled took the routes and does not announce \(routes.joined(separator: ", "))"
        case .system(let error): "tailscaled: \(error)"
        }
    }
}

/// The local Tailscale, asked through the LocalAPI on its unix socket.
///
/// It blocks its thread.
package struct Tailscale: Sendable {
    private let path: String
    private let http: UnixHTTP
    private static let preferences = "/localapi/v0/prefs"
    /// What `tailscale set --advertise-exit-node` stands for: never ours to take away.
    private static let exitNode: Set = ["0.0.0.0/0", "::/0"]

    /// `timeout` is in seconds, for each of the requests.
    package init(socket: String = "/var/run/tailscale/tailscaled.sock", timeout: Double = 10) {
        path = socket
        http = UnixHTTP(socket: socket, host: "local-tailscaled.sock", timeout: timeout)
    }

    /// Makes Tailscale announce our routes, and no longer those that were ours.
    ///
    /// The preference is one list for everybody: routes that are neither in `ours` nor in
    /// `previously`, and those of an exit node, stay. Returns the list as it is now, or nil when
    /// it was right already and nothing was sent. An announced route serves nobody before it is
    /// approved in the tailnet's admin console, or by its `autoApprovers`.
    @discardableResult
    package func advertise(
        ours: [String], previously: [String]
    ) throws(TailscaleError) -> [String]? {
        let current = try Tailscale.routes(try call("GET"))
        let wanted = Tailscale.merge(current, ours: ours, previously: previously)
        if Set(wanted) == Set(current) { return nil }
        let change: JSONValue = [
            "AdvertiseRoutes": .array(wanted.map { .string($0) }),
            // Without the mask tailscaled ignores the value.
            "AdvertiseRoutesSet": true,
        ]
        let after = try Tailscale.routes(try call("PATCH", change))
        let missing = Set(wanted).subtracting(after)
        if !missing.isEmpty { throw .ignored(missing.sorted()) }
        return after
    }

    /// The routes that Tailscale announces now, whoever asked for them.
    package func announced() throws(TailscaleError) -> [String] {
        try Tailscale.routes(try call("GET"))
    }

    /// The list to announce: what is foreign in its order, then what of ours is new.
    static func merge(_ current: [String], ours: [String], previously: [String]) -> [String] {
        let ours = ours.map(canonical)
        let gone = Set(previously.map(canonical)).subtracting(ours).subtracting(exitNode)
        var wanted: [String] = []
        for route in current.map(canonical) + ours
        where !gone.contains(route) && !wanted.contains(route) {
            wanted.append(route)
        }
        return wanted
    }

    /// Two spellings of one route are one route.
    private static func canonical(_ route: String) -> String {
        CIDR(route)?.description ?? CIDR6(route)?.description ?? route
    }

    private static func routes(_ preferences: JSONValue) throws(TailscaleError) -> [String] {
        switch preferences["AdvertiseRoutes"] {
        // Go writes an empty list as null.
        case nil, .null: return []
        case .array(let all):
            let routes = all.compactMap(\.string)
            guard routes.count == all.count else { throw .garbled("routes that are no text") }
            return routes.map(canonical)
        default: throw .garbled("AdvertiseRoutes is no list")
        }
    }

    private func call(
        _ method: String, _ body: JSONValue? = nil
    ) throws(TailscaleError) -> JSONValue {
        let reply: HTTPReply
        do throws(HTTPError) {
            reply = try http.call(method, Tailscale.preferences, body: body?.text())
        } catch {
            throw explain(error)
        }
        guard reply.status == 200 else {
            let reason = Tailscale.reason(reply)
            throw [401, 403].contains(reply.status)
                ? .notAllowed(reason) : .refused(status: reply.status, reason)
        }
        guard let value = try? JSONValue(parsing: reply.body), case .object = value else {
            throw .garbled("'\(reply.text.prefix(80))'")
        }
        return value
    }

    private func explain(_ error: HTTPError) -> TailscaleError {
        switch error {
        case .timeout: .timeout(path)
        case .garbled(let what): .garbled(what)
        case .system(let error):
            switch error.code {
            case ENOENT, ECONNREFUSED: .notRunning(path)
            case EACCES, EPERM: .notAllowed(error.description)
            default: .system(error)
            }
        }
    }

    /// The `error` of a JSON body, or the first line of the text.
    private static func reason(_ reply: HTTPReply) -> String {
        if let error = (try? JSONValue(parsing: reply.body))?["error"]?.string { return error }
        let line = reply.text.split(whereSeparator: \.isNewline).first ?? "no reason given"
        return String(line.prefix(200))
    }
}
