// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Glibc

enum ValidateVerb {
    static let command = Command(
        "validate", "Print every mistake in the fleet file, or nothing.",
        discussion: """
            Each mistake is a line FILE:LINE:COLUMN: path: message. All of them are found in one \
            run, across imports, profiles and VMs. Nothing on the host is looked at.
            """,
        examples: [
            .init("martlet validate", "Check the fleet file of this folder."),
            .init("martlet validate -f other.yaml", "Check another one."),
        ]
    ) { arguments in
        let printer = Printer(arguments)
        let location = FleetLocation(arguments[Options.file])
        let file = try location.read(overrides: Layout.standard(user: geteuid()).overrides)
        let fleet = try location.valid(file, printer)
        guard printer.isJSON else { return }
        printer.document([
            "fleet": .string(fleet.name), "vms": JSONValue(fleet.vms.count),
            "files": .array(file.files.map { .string($0) }),
            "diagnostics": .array(file.diagnostics.map(\.json)),
        ])
    }
}
