// SPDX-License-Identifier: Apache-2.0
import Glibc

/// A system call that failed: what was attempted, and errno.
package struct SystemError: Error, Equatable, CustomStringConvertible {
    package let what: String
    package let code: Int32
    /// Of a program that was to be started confined: what could not be done.
    package var step: Sandbox.Step?

    package init(_ what: String, _ code: Int32 = errno) {
        self.what = what
        self.code = code
    }

    package var reason: String { String(cString: strerror(code)) }
    package var description: String {
        "\(what): " + (step.map { "cannot \($0.text): " } ?? "") + reason
    }

    package var isMissing: Bool { code == ENOENT }
    package var isExisting: Bool { code == EEXIST }
    package var isBusy: Bool { code == EBUSY }
    package var isPermission: Bool { code == EACCES || code == EPERM }
    package var isNoSpace: Bool { code == ENOSPC || code == EDQUOT }
}

/// Runs a call that reports failure as -1, again when a signal interrupted it.
@discardableResult
package func check<R: SignedInteger>(
    _ what: @autoclosure () -> String, _ call: () -> R
) throws(SystemError) -> R {
    while true {
        let result = call()
        if result != -1 { return result }
        if errno != EINTR { throw SystemError(what()) }
    }
}

/// The same for our own C functions, which return -errno.
@discardableResult
func checkNegative<R: BinaryInteger>(
    _ what: @autoclosure () -> String, _ result: R
) throws(SystemError) -> R {
    guard result >= 0 else { throw SystemError(what(), Int32(-Int64(result))) }
    return result
}
