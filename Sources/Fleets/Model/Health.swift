// SPDX-License-Identifier: Apache-2.0

/// One way to ask a guest whether its service works.
package struct HealthCheck: Record {
    package enum Probe: Sendable, Equatable {
        case http(HTTPTarget)
        case tcp(Port)
        /// A name that the guest's resolver must answer.
        case dns(String)
        /// A shell command inside the guest that must end with 0.
        case exec(String)
    }

    package var http: HTTPTarget?
    package var tcp: Port?
    package var dns: String?
    package var exec: String?
    package var interval = Period.seconds(10)
    package var timeout = Period.seconds(2)
    package var retries = 3
    package var startup = Period.seconds(60)

    package init() {}

    /// What is asked; nil only in a check that was never read from a file.
    package var probe: Probe? {
        if let http { return .http(http) }
        if let tcp { return .tcp(tcp) }
        if let dns { return .dns(dns) }
        return exec.map(Probe.exec)
    }

    package mutating func declare(_ key: Fields) {
        key(
            "http", &http,
            "A page that must answer with 2xx or 3xx, such as http://:80/ or https://:443/.")
        key("tcp", &tcp, "A port that must accept a connection.")
        key("dns", &dns, "A name that the guest must resolve when asked.")
        key("exec", &exec, "A command inside the guest that must succeed.")
        key("interval", &interval, "Time between two checks.")
        key("timeout", &timeout, "How long one check may take.")
        key("retries", &retries, "Failures in a row that make the VM unhealthy.")
        key("startup", &startup, "How long failures do not count once the guest has started.")
    }

    package mutating func finish(_ scope: Scope) {
        let probes = [http != nil, tcp != nil, dns != nil, exec != nil].filter { $0 }.count
        if probes != 1 { scope.fail("a check asks exactly one of 'http', 'tcp', 'dns', 'exec'") }
        if retries < 1 { scope.fail("'retries' must be at least 1") }
        if interval.milliseconds < 100 { scope.fail("'interval' must be at least 100ms") }
        if timeout.milliseconds < 1 { scope.fail("'timeout' must be longer than nothing") }
    }
}

/// A page that the guest asks for, written `http://:80/path`; no host stands for the VM itself.
package struct HTTPTarget: Notation {
    package var isSecure: Bool
    package var host: String?
    package var port: UInt16
    package var path: String

    package init?(_ text: String) {
        isSecure = text.hasPrefix("https://")
        guard isSecure || text.hasPrefix("http://") else { return nil }
        let rest = text.dropFirst(isSecure ? 8 : 7)
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        path = slash == rest.endIndex ? "/" : String(rest[slash...])
        let parts = rest[..<slash].pieces(":")
        guard parts.count <= 2, path.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return nil }
        host = parts.first.flatMap { $0.isEmpty ? nil : String($0) }
        if let host, !isHostName(host) { return nil }
        port = isSecure ? 443 : 80
        if parts.count == 2 {
            guard let given = UInt16(parts[1]), given > 0 else { return nil }
            port = given
        } else if host == nil {
            return nil
        }
    }

    package var description: String {
        "http\(isSecure ? "s" : "")://\(host ?? ""):\(port)\(path)"
    }
    package static var expected: String { "an address such as http://:80/" }
    package static var pattern: String { "^https?://[^/]*(/.*)?$" }
}

extension HTTPTarget {
    /// Whether the VM asks itself, by whatever network.
    package var isOfThisVM: Bool {
        guard let host = host?.lowercased() else { return true }
        return host == "localhost" || host.hasPrefix("127.") && IPv4(host) != nil
    }

    /// Whether the page is one of the VM itself or of another guest, by its name on a network.
    ///
    /// What guests call themselves no authority signs, so that certificates of theirs are not looked at.
    package func isOfGuest(_ vm: VM) -> Bool {
        guard let host = host?.lowercased(), !isOfThisVM else { return true }
        return host.hasSuffix(".internal")
            || vm.interfaces.contains { $0.address?.description == host }
    }
}

package enum RestartPolicy: String, Choice {
    case no
    case onFailure = "on-failure"
    case always
}

package struct Boot: Record {
    package var deadline = Period.seconds(90)

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("deadline", &deadline, "A guest that has not come up by then is started again.")
    }
}

package struct Stop: Record {
    package var grace = Period.seconds(30)

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("grace", &grace, "How long a guest may take to shut down before it is killed.")
    }
}
