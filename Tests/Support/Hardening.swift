// SPDX-License-Identifier: Apache-2.0
package import Fleets

extension Hardening {
    /// A level, without some of its settings.
    package init(_ level: Level, except exceptions: [String] = []) {
        self.init()
        kernel = level
        self.exceptions = exceptions
    }
}
