// SPDX-License-Identifier: Apache-2.0
import CLinux

extension Files {
    /// Opens a folder below another one (O_PATH); no name and no link leads out of that.
    ///
    /// The corresponding C function is `openat2`. Links are followed as if `root` were `/`, or with
    /// `followLinks: false` refused with ELOOP.
    package static func openBelow(
        _ root: borrowing Descriptor, _ path: String, followLinks: Bool
    ) throws(SystemError) -> Descriptor {
        let place = path.isEmpty ? "." : path
        return Descriptor(
            owning: try checkNegative(
                "open \(place)", ml_open_below(root.raw, place, followLinks ? 0 : 1)))
    }
}
