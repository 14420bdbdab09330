// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

package enum Passwords {
    /// Hashes a password with yescrypt, as /etc/shadow holds it.
    ///
    /// The corresponding C function is `crypt_rn`.
    package static func hash(_ password: String) throws(SystemError) -> String {
        var buffer = [CChar](repeating: 0, count: 512)
        try checkNegative("crypt", ml_hash_password(password, &buffer, buffer.count))
        return String(
            decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// Asks at the terminal without showing what is typed; nil at the end of the input.
    ///
    /// It blocks its thread. The corresponding C function is `tcsetattr`.
    package static func ask(_ prompt: String) -> String? {
        var settings = termios()
        let isTerminal = tcgetattr(0, &settings) == 0
        let before = settings
        settings.c_lflag &= ~tcflag_t(ECHO)
        if isTerminal {
            tcsetattr(0, TCSAFLUSH, &settings)
            try? write(2, prompt.utf8)
        }
        let line = readLine()
        if isTerminal {
            var restored = before
            tcsetattr(0, TCSAFLUSH, &restored)
            try? write(2, "\n".utf8)
        }
        return line
    }
}

/// A user of this host.
package struct Account: Sendable, Equatable {
    package let user: UInt32
    package let group: UInt32

    /// Nil when the host does not have it.
    ///
    /// The corresponding C function is `getpwnam_r`.
    package init?(_ name: String) {
        var entry = passwd()
        var found: UnsafeMutablePointer<passwd>?
        var buffer = [CChar](repeating: 0, count: 16384)
        guard getpwnam_r(name, &entry, &buffer, buffer.count, &found) == 0, found != nil else {
            return nil
        }
        user = entry.pw_uid
        group = entry.pw_gid
    }
}
