// SPDX-License-Identifier: Apache-2.0
import Linux

/// How a helper of publishing is started with as little as it needs.
enum Launcher {
    /// A program whose files are for its user alone, and that can never get more rights than it
    /// has; with `user`, it is that one without any right of root but `capability`.
    ///
    /// `setpriv` does it after a scope was made around it, which takes root.
    static func program(_ words: [String], user: UInt32?, capability: String? = nil) -> Program {
        var drop = ["setpriv", "--no-new-privs"]
        if let user {
            let capabilities = "-all" + (capability.map { ",+\($0)" } ?? "")
            drop += [
                "--reuid=\(user)", "--regid=\(user)", "--clear-groups",
                "--inh-caps=\(capabilities)", "--ambient-caps=\(capabilities)",
                "--bounding-set=\(capabilities)",
            ]
        }
        var program = Program(
            "/bin/sh", ["-c", "umask 077; exec \"$@\"", "sh"] + drop + ["--"] + words)
        program.folder = "/"
        return program
    }
}
