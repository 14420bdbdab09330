// SPDX-License-Identifier: Apache-2.0
import Arguments

/// Documents that are made of the declarations of the verbs; `make docs` and `make install` call it.
enum ManualVerb {
    enum Form: String, CaseIterable, ArgumentValue { case man, markdown, services }

    static let form = Key<Form>.argument(
        "FORM", "A man page, the command reference, or the services.")

    static let command = Command(
        "__manual", "Print the manual.", parameters: [form], isHidden: true
    ) { arguments in
        let manual = Manual(Commands.root)
        let printer = Printer(arguments)
        switch arguments[form] {
        case .man: printer.write(manual.manPage(version: VersionVerb.version))
        case .markdown: printer.write(manual.markdown())
        case .services: printer.write(try ServicesDocument.text())
        }
    }
}
