// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// Why a VM keeps the image that it has although the fleet file gives another one.
package enum ImageHold: Sendable, Equatable {
    /// `rollback` holds it until the next `upgrade`.
    case pinned
    /// The other image did not come up on this VM; the reason is a sentence.
    case failed(digest: String, reason: String)
    /// What was written to its root would not fit another image.
    case mutable

    /// In words; `vm` is the VM's name.
    package func sentence(_ vm: String) -> String {
        switch self {
        case .pinned:
            "a rollback holds its image: 'martlet upgrade \(vm)' takes the newest one"
        case .failed(let digest, let reason):
            "the image \(short(digest)) failed on it and is not tried again (\(reason)): "
                + "'martlet upgrade \(vm)' tries it"
        case .mutable:
            "it is mutable and keeps its image: what was written to it would not fit another one. "
                + "'martlet recreate \(vm)' takes the new one"
        }
    }
}

extension ObservedVM {
    /// Why this VM, as it is declared, does not take the image that it should have; nil when it
    /// does, or has it.
    package func hold(_ vm: VM, against desired: DesiredImage) -> ImageHold? {
        guard let applied, desired != .built(digest: applied.imageDigest) else { return nil }
        if keptImage(of: vm, applied: applied) != nil { return .mutable }
        // A pin on an image that is not the applied one is left over from a rollback that was
        // killed before it changed anything.
        if pinned == applied.imageDigest { return .pinned }
        guard case .built(let digest) = desired, let reason = failedImages[digest] else {
            return nil
        }
        return .failed(digest: digest, reason: reason)
    }
}
