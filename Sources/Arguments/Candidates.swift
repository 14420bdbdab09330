// SPDX-License-Identifier: Apache-2.0

/// A word that completion offers, with a few words about it.
package struct Candidate: Sendable, Equatable {
    package let word: String
    package let description: String

    package init(_ word: String, _ description: String = "") {
        self.word = word
        self.description = description
    }
}

/// What completion offers for a value: fixed words, words found when asked, paths, or several of these.
package struct Candidates: Sendable {
    package enum Paths: Sendable { case none, files, folders }

    let words: [String]
    let paths: Paths
    let find: (@Sendable (Arguments) async -> [Candidate])?

    package init(
        words: [String] = [], paths: Paths = .none,
        find: (@Sendable (Arguments) async -> [Candidate])? = nil
    ) {
        self.words = words
        self.paths = paths
        self.find = find
    }

    package static let none = Candidates()
    package static let files = Candidates(paths: .files)
    package static let folders = Candidates(paths: .folders)
    package static func words(_ words: [String]) -> Candidates { Candidates(words: words) }

    /// Words found at the moment of completion, such as the names of VMs.
    ///
    /// The arguments hold what stands before the cursor, unchecked: read optional keys only.
    package static func found(
        _ find: @escaping @Sendable (Arguments) async -> [Candidate]
    ) -> Candidates { Candidates(find: find) }
}
