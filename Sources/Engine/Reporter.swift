// SPDX-License-Identifier: Apache-2.0

/// What long work tells whoever watches: the engine prints nothing itself.
package struct Reporter: Sendable {
    package enum Event: Sendable, Equatable {
        /// `item` (a VM or an image) is now doing what `text` says.
        case working(item: String, text: String)
        /// `item` is done; `text` says with what result.
        case finished(item: String, ok: Bool, text: String)
        /// Something that a person should know, whatever else happens.
        case warning(String)
    }

    private let report: @Sendable (Event) -> Void

    package init(_ report: @escaping @Sendable (Event) -> Void) { self.report = report }

    package static let silent = Reporter { _ in }

    package func working(_ item: String, _ text: String) {
        report(.working(item: item, text: text))
    }
    package func finished(_ item: String, ok: Bool, _ text: String) {
        report(.finished(item: item, ok: ok, text: text))
    }
    package func warning(_ text: String) { report(.warning(text)) }
}

/// What an acting verb did to one VM.
package struct Outcome: Sendable {
    package let vm: String
    package let action: String
    package var ok: Bool { error == nil }
    package let seconds: Double
    package let detail: String
    /// Why it failed.
    package let error: (any Error)?

    package init(
        vm: String, action: String, seconds: Double, result: Result<String, any Error>
    ) {
        self.vm = vm
        self.action = action
        self.seconds = seconds
        switch result {
        case .success(let detail):
            self.detail = detail
            error = nil
        case .failure(let failure):
            detail = sentence(failure)
            error = failure
        }
    }
}

/// An error in words for people.
func sentence(_ error: any Error) -> String {
    error is CancellationError ? "interrupted" : "\(error)"
}
