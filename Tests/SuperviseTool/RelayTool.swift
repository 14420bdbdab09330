// SPDX-License-Identifier: Apache-2.0
import Glibc
import Supervisor

/// PIDFD, idle seconds, sessions, descriptors (0: as they are), then `tcp:SOCKET:ADDRESS:PORT` for each route.
func relay(_ words: [String]) -> Int32 {
    var limits = Relay.Limits()
    limits.idle = Double(words[1]) ?? 0
    limits.sessions = Int(words[2]) ?? 0
    if let most = rlim_t(words[3]), most > 0 {
        var limit = rlimit(rlim_cur: most, rlim_max: most)
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
    let routes = words[4...].compactMap { Relay.Route($0) }
    return Relay.run(routes: routes, watching: Int32(words[0]) ?? -1, limits: limits)
}
