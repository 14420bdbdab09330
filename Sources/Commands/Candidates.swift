// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Glibc
import Linux

extension Candidates {
    /// The names of VMs that are declared, or that exist under ROOT.
    static let vms = Candidates.found { arguments in
        let declared = declaredFleet(arguments)?.vms.map(\.name) ?? []
        let existing = existing { $0.vms }
        return declared.map { Candidate($0, "declared") }
            + existing.filter { !declared.contains($0) }.map { Candidate($0, "not declared") }
    }

    /// The names of all snapshots.
    static let snapshots = Candidates.found { _ in
        guard let layout = try? Layout.standard(user: geteuid()) else { return [] }
        let names = ((try? Files.list(layout.vms)) ?? []).flatMap { vm in
            ((try? Files.list(layout.vm(vm).snapshots)) ?? [])
                .filter { $0.hasSuffix(".json") }.map { Candidate(String($0.dropLast(5)), vm) }
        }
        return names
    }

    /// The names of the fleet's secrets.
    static let secrets = Candidates.found { arguments in
        (declaredFleet(arguments)?.secrets ?? []).map { Candidate($0.name, $0.place) }
    }

    /// The names of images that are declared, or that exist under ROOT.
    static let images = Candidates.found { arguments in
        let declared = declaredFleet(arguments)?.images.map(\.name) ?? []
        let existing = existing { $0.root + "/images/names" }
        return (declared + existing.filter { !declared.contains($0) }).map { Candidate($0) }
    }
}

/// Completion offers less rather than a message when something cannot be read.
private func declaredFleet(_ arguments: Arguments) -> Fleet? {
    (try? FleetLocation(arguments[Options.file]).read(overrides: nil))?.fleet
}

/// What exists in a folder below ROOT.
private func existing(_ folder: (Layout) -> String) -> [String] {
    guard let layout = try? Layout.standard(user: geteuid()) else { return [] }
    return (try? Files.list(folder(layout))) ?? []
}
