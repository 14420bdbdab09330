// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Glibc

enum ShowVerb {
    static let command = Command(
        "show", "Print a VM as declared, and where each value comes from.",
        discussion: """
            Defaults, profiles, the catalogue's service, the VM itself and overrides are merged; \
            the origin of a value is the file and line that decided it.
            """,
        parameters: [Options.vm],
        examples: [
            .init("martlet show web", "All values of web."),
            .init("martlet show web --json", "The same for a script."),
        ]
    ) { arguments in
        let printer = Printer(arguments)
        let location = FleetLocation(arguments[Options.file])
        let file = try location.read(overrides: Layout.standard(user: geteuid()).overrides)
        let fleet = try location.valid(file, printer)
        let name = arguments[Options.vm]
        guard let keys = file.effective(name) else {
            throw Failure.noVM(name, in: fleet.vms.map(\.name))
        }
        if printer.isJSON {
            return printer.document([
                "name": .string(name),
                "keys": .array(
                    keys.map {
                        [
                            "path": .string($0.path), "value": .string($0.value),
                            "origin": .string($0.origin),
                        ]
                    }),
            ])
        }
        var table = Table(["KEY", "VALUE", "FROM"])
        for key in keys {
            let role: Terminal.Role? = key.origin == "default" ? .muted : nil
            table.add([.init(key.path), .init(key.value, role), .init(key.origin, role)])
        }
        printer.table(table)
    }
}
