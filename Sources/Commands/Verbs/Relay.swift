// SPDX-License-Identifier: Apache-2.0
import Arguments
import Supervisor

/// `__relay`: forwards ports of the loopback to a VM, for as long as its supervisor runs.
enum RelayVerb {
    static let words = Key.rest("WORD", "The VM, the ROOT, and the routes.", required: true)

    /// The sockets and the supervisor's pidfd are inherited: it has nothing else to work with.
    static let command = Command(
        "__relay", "Forward ports that the kernel cannot.",
        parameters: [words],
        exitCodes: [("0", "The supervisor ended."), ("1", "It could not begin.")],
        isHidden: true, handlesSignals: true
    ) { arguments in
        let routes = arguments[words].compactMap { Relay.Route($0) }
        return Relay.run(routes: routes, watching: 3)
    }
}
