// SPDX-License-Identifier: Apache-2.0
import Arguments
package import Fleets

/// Parameters that more than one verb takes; the same thing has the same name everywhere.
enum Options {
    static let file = Key<String?>.option(
        "file", "f", value: "FILE",
        "The fleet file. Else $MARTLET_FLEET, ./fleet.yaml, /etc/martlet/fleet.yaml.",
        candidates: .files)
    static let json = Key.flag("json", "Print exactly one JSON document; streams print one a line.")
    static let quiet = Key.flag("quiet", "q", "Show no progress.")

    /// For destructive verbs.
    static let yes = Key.flag("yes", "y", "Do not ask before something is lost.")

    static let vm = Key<String>.argument("NAME", "The VM.", candidates: .vms)
    static let vms = Key<[String]>.arguments("NAME", "VMs; all when omitted.", candidates: .vms)
    static let someVMs = Key<[String]>.arguments(
        "NAME", "VMs.", required: true, candidates: .vms)
}

// What stands in the fleet file is written the same way on the command line.

extension ByteSize: ArgumentValue {
    package init?(argument: String) { self.init(argument) }
    package var argument: String { description }
}

extension Period: ArgumentValue {
    package init?(argument: String) { self.init(argument) }
    package var argument: String { description }
}
