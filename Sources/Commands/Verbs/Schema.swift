// SPDX-License-Identifier: Apache-2.0
import Arguments
import Fleets

enum SchemaVerb {
    static let command = Command(
        "schema", "Print the JSON Schema of the fleet file.",
        discussion: """
            Editors complete and check a fleet file with it. With the language server for YAML, \
            put this line into the fleet file: `# yaml-language-server: $schema=fleet.schema.json`
            """,
        examples: [.init("martlet schema > fleet.schema.json", "Write it beside the fleet file.")]
    ) { arguments in
        Printer(arguments).document(FleetFile.schema)
    }
}
