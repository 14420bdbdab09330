// SPDX-License-Identifier: Apache-2.0
import Arguments
import Supervisor

/// `__shares`: keeps the daemons of a VM's shares running, for as long as its supervisor runs.
enum SharesVerb {
    static let words = Key.rest(
        "WORD", "The VM, the ROOT, and the file that says what to share.", required: true)

    /// The channel to the supervisor is inherited as descriptor 3.
    static let command = Command(
        "__shares", "Serve folders of the host to a VM.",
        parameters: [words],
        exitCodes: [("0", "The supervisor ended."), ("1", "They could not be served.")],
        isHidden: true, handlesSignals: true
    ) { arguments in
        ShareKeeper.run(try ShareKeeping.read(arguments[words].last ?? ""))
    }
}
