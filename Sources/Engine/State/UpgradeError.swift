// SPDX-License-Identifier: Apache-2.0
import Linux
import Planning

/// Why a VM is not on the generation that was asked for.
package enum UpgradeError: Error, Equatable, CustomStringConvertible {
    /// The new one did not come up, and all is as before.
    case returned(Return)
    /// It did not come up, and going back did not work either.
    case stuck(Return, because: String, isDataBack: Bool)
    /// The data of before could not be kept, so nothing was tried.
    case notTried(vm: String, generation: Int, reason: String)
    case mutable(vm: String)
    case suspended(vm: String)
    case noGeneration(vm: String, number: Int, known: [Int])
    case noEarlier(vm: String)
    case imageGone(vm: String, generation: Int, digest: String)
    /// A rollback whose generation is the current one now, and is not well.
    case unwell(vm: String, generation: Int, reason: String, snapshot: String)

    /// What a failed upgrade went back to.
    package struct Return: Equatable, Sendable {
        package var vm: String
        /// The image that failed.
        package var digest: String
        package var reason: String
        package var generation: Int
        /// The snapshot of the data of before, and when it was made.
        package var snapshot: String?
        package var dataOf: Int64?
        /// The snapshot of the data that the failed generation left.
        package var failedState: String?

        fileprivate var failure: String { "the upgrade to \(short(digest)) failed (\(reason))" }
        fileprivate var kept: String {
            failedState.map { "; the state that failed is the snapshot '\($0)'" } ?? ""
        }
        fileprivate var data: String {
            guard let snapshot else { return "with its data untouched" }
            guard let dataOf else {
                return "with the data as the failed start left it, for the snapshot "
                    + "'\(snapshot)' is gone"
            }
            return "with the data of \(Clock.iso8601(dataOf)) (snapshot '\(snapshot)')"
        }
    }

    package var description: String {
        switch self {
        case .returned(let back):
            "\(back.failure): it is back on generation \(back.generation) \(back.data)\(back.kept)"
        case .stuck(let back, let why, true):
            "\(back.failure), and generation \(back.generation), which is the current one again "
                + "\(back.data), did not come up either: \(why)\(back.kept)"
        case .stuck(let back, let why, false):
            "\(back.failure), and its data could not be given back: \(why). The data of before is "
                + "the snapshot '\(back.snapshot ?? "")', to be used with generation "
                + "\(back.generation): 'martlet start \(back.vm)' tries it again"
        case .notTried(_, let generation, let reason):
            "nothing was upgraded, for its data could not be kept (\(reason)): "
                + "it is on generation \(generation) as before"
        case .mutable(let vm):
            "\(vm) is mutable: its system lies on its own disk and is kept up to date in the guest"
        case .suspended(let vm):
            "\(vm) is suspended, and its memory fits to its image alone: "
                + "'martlet resume \(vm)' first, or 'martlet start --discard-memory \(vm)'"
        case .noGeneration(let vm, let number, let known):
            "\(vm) has no generation \(number); it has "
                + known.map(String.init).joined(separator: ", ")
        case .noEarlier(let vm):
            "\(vm) has no earlier generation to return to: 'martlet generations \(vm)' lists all"
        case .imageGone(let vm, let generation, let digest):
            "the image \(short(digest)) of generation \(generation) of \(vm) is gone, so nothing "
                + "was changed"
        case .unwell(_, let generation, let reason, let snapshot):
            "it is on generation \(generation) now and did not come up (\(reason)); "
                + "its data of before is the snapshot '\(snapshot)'"
        }
    }
}
