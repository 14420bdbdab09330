// SPDX-License-Identifier: Apache-2.0
import Fleets

/// Whose links and rules they are: one fleet below one ROOT.
///
/// Each fleet has tables of its own, so that fleets of one host never touch each other's, and to
/// forget one is to delete its tables. A packet passes the chains of all; a drop in one is final.
package struct Owner: Sendable, Equatable {
    package let fleet: String
    /// Tells two ROOTs with fleets of the same name apart.
    package let root: String

    package init(fleet: String, root path: String) {
        self.fleet = fleet
        root = Derived.rootID(path)
    }

    /// The name of the fleet's table in both families.
    package var table: String { "martlet-\(fleet)-\(root)" }

    /// The alias of a link, by which it is known as ours: the kernel keeps it, and people see it.
    package func alias(_ parts: String...) -> String {
        aliasPrefix + parts.joined(separator: "/")
    }
    package var aliasPrefix: String { "martlet/\(root)/\(fleet)/" }
}

extension Owner {
    /// The group number of every link of ours.
    package static let group: UInt32 = 0x6d76
}
