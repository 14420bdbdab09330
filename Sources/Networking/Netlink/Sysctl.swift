// SPDX-License-Identifier: Apache-2.0
package import Linux

import Glibc

/// Settings of the kernel below `/proc/sys`, such as `net/ipv4/ip_forward`.
///
/// Those below `net` are of the calling thread's network namespace: unlike `/proc/net`, which is
/// that of the process' first thread, this folder shows to each thread its own. Parts are separated
/// by `/` and not by `.`, which the name of an interface may contain.
package enum Sysctl {
    /// The value without the line's end; ENOENT (`isMissing`) for one that this kernel has not.
    package static func read(_ path: String) throws(SystemError) -> String {
        let text = try Files.readText(try file(path))
        return text.hasSuffix("\n") ? String(text.dropLast()) : text
    }

    /// Sets the value; the kernel answers with EINVAL to what it cannot read.
    package static func write(_ path: String, _ value: String) throws(SystemError) {
        let file = try file(path)
        do {
            try Descriptor.open(file, O_WRONLY).write(value.utf8)
        } catch {
            throw SystemError("write \(file)", error.code)
        }
    }

    private static func file(_ path: String) throws(SystemError) -> String {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.allSatisfy({ !["", ".", ".."].contains($0) && !$0.contains("\0") }) else {
            throw SystemError("sysctl \(path)", EINVAL)
        }
        return "/proc/sys/\(path)"
    }
}
