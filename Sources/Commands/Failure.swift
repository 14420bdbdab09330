// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
package import Fleets
import Images
import Imports
import Linux
import Networking
import Secrets
import Storage

/// The exit codes that scripts rely on.
package enum ExitCode: Int32, CaseIterable, Sendable {
    case done = 0
    case failed = 1
    case changesPending = 2
    case usage = 64
    case invalidFleet = 65
    case notFound = 66
    case unavailable = 69
    case locked = 75
    case noPrivilege = 77
    case hostNotReady = 78

    /// What the manual says about it.
    package var meaning: String {
        switch self {
        case .done: "Done."
        case .failed: "Failed; the message says what, where, why and what to do."
        case .changesPending: "`plan --check` only: changes are pending."
        case .usage: "Wrong usage; the message names the nearest verb or option."
        case .invalidFleet:
            "The fleet file is invalid; every mistake is printed as FILE:LINE:COLUMN: path: message."
        case .notFound: "No such file, VM, image, snapshot or backup."
        case .unavailable: "Something needed is not there: a tool, KVM, the API."
        case .locked: "Locked by another run; try again."
        case .noPrivilege: "Privilege is needed."
        case .hostNotReady: "The host is not set up for this; see `martlet doctor`."
        }
    }
}

/// Why a verb failed, for people and for scripts: the one error that reaches the top.
package struct Failure: Error, Equatable, CustomStringConvertible {
    package let code: ExitCode
    /// One sentence that names what, where and why.
    package let message: String
    /// What to do about it.
    package let hint: String?
    /// Mistakes in a file, each at its place.
    package let diagnostics: [Diagnostic]
    /// The verb's own JSON document says it already: a second one must not follow.
    package let isReported: Bool

    package init(
        _ code: ExitCode, _ message: String, hint: String? = nil,
        diagnostics: [Diagnostic] = [], isReported: Bool = false
    ) {
        self.code = code
        self.message = message
        self.hint = hint
        self.diagnostics = diagnostics
        self.isReported = isReported
    }

    package var description: String { message }
}

extension Failure {
    private init(_ error: StoreError) {
        switch error {
        case .system(let system): self.init(system)
        case .locked: self.init(.locked, error.description)
        case .foreignRoot: self.init(.noPrivilege, error.description)
        case .missingTool(_, let package):
            self.init(.unavailable, error.description, hint: Failure.install(package))
        case .noHome, .relative: self.init(.usage, error.description)
        case .newer, .unreadable, .owned, .failed: self.init(.failed, error.description)
        }
    }

    private init(_ error: LifecycleError) {
        switch error {
        case .notCreated, .missingImage: self.init(.notFound, error.description)
        case .privilegedPort, .noPrivilegeForNetworks: self.init(.noPrivilege, error.description)
        case .unreachable: self.init(.hostNotReady, error.description)
        case .cannotConfine:
            self.init(
                .hostNotReady, error.description,
                hint: "'hardening: { confine: false }' in the fleet file starts it without; then "
                    + "only its user keeps it from the host.")
        case .failed, .damagedImage, .timeout, .notRunning, .suspended, .cannotSuspend,
            .cannotResume:
            self.init(.failed, error.description)
        }
    }

    private init(_ error: UpgradeError) {
        switch error {
        case .noGeneration, .noEarlier, .imageGone: self.init(.notFound, error.description)
        case .returned(let back):
            self.init(
                .failed, error.description,
                hint: "'up' does not try this image again; 'martlet upgrade \(back.vm)' does.")
        case .stuck, .notTried, .mutable, .suspended, .unwell:
            self.init(.failed, error.description)
        }
    }

    private init(_ error: ImageError) {
        switch error {
        case .system(let system): self.init(system)
        case .missingTool(_, let package):
            self.init(.unavailable, error.description, hint: Failure.install(package))
        case .unknownImage: self.init(.notFound, error.description)
        case .missing:
            self.init(.notFound, error.description, hint: "'martlet images' lists those that are.")
        case .badName: self.init(.usage, error.description)
        case .notRoot(let image):
            self.init(
                .noPrivilege, error.description,
                hint: "Where you are root: 'martlet build \(image)' and 'martlet image export "
                    + "\(image) FILE'; then, here: 'martlet image import FILE'.")
        default: self.init(.failed, error.description)
        }
    }

    private init(_ error: StorageError) {
        switch error {
        case .system(let system): self.init(system)
        case .missingTool(_, let package):
            self.init(.unavailable, error.description, hint: Failure.install(package))
        case .missingBackup: self.init(.notFound, error.description)
        case .unusableDevice: self.init(.hostNotReady, error.description)
        case .noSpace, .shrink, .failed, .foreignContent, .damaged, .undecryptable, .cancelled:
            self.init(.failed, error.description)
        }
    }

    private init(_ error: BackupError) {
        switch error {
        case .badTarget: self.init(.usage, error.description)
        case .noImage: self.init(.notFound, error.description)
        case .busy, .exists, .failed: self.init(.failed, error.description)
        }
    }

    private init(_ error: ImportError) {
        switch error {
        case .missingLibrary(_, let package):
            self.init(.unavailable, error.description, hint: Failure.install(package))
        case .malformed, .unsuitable: self.init(.invalidFleet, error.description)
        case .missing: self.init(.notFound, error.description)
        }
    }

    private init(_ error: SnapshotError) {
        switch error {
        case .badName: self.init(.usage, error.description)
        case .unknown, .missingImage: self.init(.notFound, error.description)
        case .busy: self.init(.locked, error.description)
        case .exists, .nothing, .notHeld, .lost, .halfRestored, .failed:
            self.init(.failed, error.description)
        }
    }

    private init(_ error: SecretError) {
        switch error {
        case .system(let system): self.init(system)
        case .missingTool(_, let package):
            self.init(.unavailable, error.description, hint: Failure.install(package))
        case .missing, .noSuchKey: self.init(.notFound, error.description)
        case .invalidName: self.init(.usage, error.description)
        case .unusable, .undecryptable, .damaged, .unsupported, .empty, .tooLarge, .noSpace,
            .cancelled:
            self.init(.failed, error.description)
        }
    }

    private init(_ error: SecretFailure) {
        switch error {
        case .unknown: self.init(.notFound, error.description)
        case .notInMemory: self.init(.hostNotReady, error.description)
        case .noSource, .noFleet, .notOurs: self.init(.failed, error.description)
        }
    }

    private init(_ error: ShareError) {
        switch error {
        case .noDaemon: self.init(.unavailable, error.description)
        case .needsRoot, .ownersNeedRoot: self.init(.noPrivilege, error.description)
        case .cannotMap, .missing, .notAFolder, .noOwner:
            self.init(.hostNotReady, error.description)
        case .forbidden, .failed: self.init(.failed, error.description)
        }
    }

    private init(_ error: NetworkError) {
        switch error {
        case .missingTool(_, let package):
            self.init(.unavailable, error.description, hint: Failure.install(package))
        case .noBridge, .noParent, .notABridge, .foreignLink, .overlap, .portTaken, .noAddress:
            self.init(.hostNotReady, error.description)
        case .failed: self.init(.failed, error.description)
        }
    }

    /// What to type for a missing program.
    static func install(_ package: String) -> String { "Install it: apt-get install \(package)" }
}

extension Failure {
    /// Gives every error its exit code and hint; one that is not known here is a plain failure.
    package init(_ error: any Error) {
        switch error {
        case let failure as Failure: self = failure
        case let usage as UsageError: self.init(.usage, usage.message, hint: usage.hint)
        case let system as SystemError where system.isPermission:
            self.init(.noPrivilege, system.description, hint: "Run it as root, or with sudo.")
        case let system as SystemError where system.isNoSpace:
            self.init(
                .failed, system.description,
                hint: "Free some space; 'martlet prune' removes what nothing refers to.")
        case let store as StoreError: self.init(store)
        case let start as LifecycleError: self.init(start)
        case let upgrade as UpgradeError: self.init(upgrade)
        case let image as ImageError: self.init(image)
        case let storage as StorageError: self.init(storage)
        case let snapshot as SnapshotError: self.init(snapshot)
        case let clone as CloneError:
            if case .badName = clone {
                self.init(.usage, clone.description)
            } else {
                self.init(.failed, clone.description)
            }
        case let secret as SecretError: self.init(secret)
        case let secret as SecretFailure: self.init(secret)
        case let share as ShareError: self.init(share)
        case let network as NetworkError: self.init(network)
        case let backup as BackupError: self.init(backup)
        case let error as ImportError: self.init(error)
        case is CancellationError: self.init(.failed, "interrupted")
        default: self.init(.failed, "\(error)")
        }
    }
}

extension Failure {
    /// A VM that the fleet does not have, with the name that was probably meant.
    static func noVM(_ name: String, in known: [String]) -> Failure {
        let meant = nearest(name, among: known)
        return Failure(
            .notFound, "there is no VM '\(name)'",
            hint: meant.map { "Did you mean '\($0)'?" }
                ?? (known.isEmpty ? nil : "The fleet has \(known.joined(separator: ", "))."))
    }
}
