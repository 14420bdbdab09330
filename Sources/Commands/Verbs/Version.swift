// SPDX-License-Identifier: Apache-2.0
import Arguments
import Fleets

enum VersionVerb {
    static let version = "0.1.0"

    static let command = Command(
        "version", "Print the version.",
        examples: [.init("martlet version", "The version, and nothing else.")]
    ) { arguments in
        let printer = Printer(arguments)
        if printer.isJSON {
            printer.document(["version": .string(version)])
        } else {
            printer.line("martlet \(version)")
        }
    }
}
