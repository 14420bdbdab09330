// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// Asks before something is lost.
package struct Confirmation: Sendable {
    /// What is about to happen, as a question would put it: `destroy web`.
    package let action: String
    /// Each thing that will be gone: `the data volume of web (8 GiB, last written 2 hours ago)`.
    package let losses: [String]

    package init(_ action: String, losses: [String]) {
        self.action = action
        self.losses = losses
    }

    /// Returns when the loss is agreed to: by `--yes`, or by an answer at the terminal; throws otherwise.
    package func require(yes: Bool, _ printer: Printer) async throws {
        let isInteractive = isatty(0) == 1 && printer.errors.isTerminal
        try await require(yes: yes, isInteractive: isInteractive, printer) { readLine() }
    }

    func require(
        yes: Bool, isInteractive: Bool, _ printer: Printer,
        answer: @escaping @Sendable () -> String?
    ) async throws {
        if yes || losses.isEmpty { return }
        guard isInteractive else {
            throw Failure(
                .usage, "'\(action)' would lose " + losses.joined(separator: "; "),
                hint: "Without a terminal to ask at, it needs --yes.")
        }
        printer.note("This will be lost:")
        for loss in losses { printer.note("  " + visible(loss)) }
        printer.prompt("\(action)? Type yes to go on: ")
        // Reading a line blocks, and a task must not.
        let typed = try await blocking { answer() }
        guard typed == "yes" || typed == "y" else { throw Failure(.failed, "nothing was changed") }
    }
}

extension Printer {
    fileprivate func prompt(_ text: String) {
        // A terminal that is gone gives no answer either, and that is reported.
        try? Linux.write(errors.descriptor, errors.paint(visible(text), .strong).utf8)
    }
}
