// SPDX-License-Identifier: Apache-2.0
package import Arguments
import Fleets
import Glibc
import Linux

/// Where a verb's words go: results to standard output, everything else to standard error.
package struct Printer: Sendable {
    /// `--json`: results are JSON, and nothing else may be written to standard output.
    package let isJSON: Bool
    /// `--quiet`.
    package let isQuiet: Bool
    /// Standard output.
    package let terminal: Terminal
    /// Standard error.
    package let errors: Terminal

    package init(_ arguments: Arguments) {
        self.init(json: arguments[Options.json], quiet: arguments[Options.quiet])
    }

    package init(
        json: Bool = false, quiet: Bool = false, output: Terminal = Terminal(1),
        errors: Terminal = Terminal(2)
    ) {
        isJSON = json
        isQuiet = quiet
        terminal = output
        self.errors = errors
    }

    /// Writes a result as it is; the text brings its own newline.
    package func write(_ text: String) { send(text, to: terminal) }

    /// Writes a line of a result.
    package func line(_ text: String) { write(text + "\n") }

    package func table(_ table: Table) { write(table.text(for: terminal)) }

    /// Says something that is no result, on standard error.
    package func note(_ text: String) { send(text + "\n", to: errors) }

    package func warning(_ text: String) {
        note("\(errors.paint("warning:", .warning)) \(visible(text))")
    }

    /// Reports a failure to people, or as the JSON error document, and returns its exit code.
    package func report(_ failure: Failure) -> Int32 {
        if isJSON {
            if !failure.isReported { document(failure.json) }
        } else {
            for diagnostic in failure.diagnostics { note(visible(diagnostic.description)) }
            note("\(errors.paint("error:", .error)) \(visible(failure.message))")
            if let hint = failure.hint {
                note("\(errors.paint("hint:", .strong)) \(visible(hint))")
            }
        }
        return failure.code.rawValue
    }

    private func send(_ text: String, to terminal: Terminal) {
        do {
            try Linux.write(terminal.descriptor, text.utf8)
        } catch  where error.code == EPIPE {
            // The reader has gone (`martlet list | head -1`): end as the signal would have ended us.
            exit(128 + SIGPIPE)
        } catch {
            // A full disk behind standard output must not look like success.
            if terminal.descriptor != 2 { Log().error("cannot write the result: \(error)") }
            exit(ExitCode.failed.rawValue)
        }
    }
}
