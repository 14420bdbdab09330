// SPDX-License-Identifier: Apache-2.0
import CSeccomp
import Glibc

/// Which system calls a process may make; every other one fails with EPERM.
package struct SystemCallFilter: Sendable, Equatable {
    /// The families of sockets, by name, such as AF_UNIX; nil for any.
    package var families: [String]?
    package var mayMakeNamespaces = false
    /// Whether memory may be both written and executed.
    package var mayWriteAndExecute = false
    package var mayChangePersonality = false
    /// Whether it may set the set-user-id and set-group-id bits of files.
    package var maySetIDs = false
    /// Further calls, and calls that are allowed otherwise, by name.
    package var added: [String] = []
    package var removed: [String] = []

    package init() {}

    private static let knownFamilies: [String: Int32] = [
        "AF_UNIX": AF_UNIX, "AF_INET": AF_INET, "AF_INET6": AF_INET6, "AF_NETLINK": AF_NETLINK,
        "AF_PACKET": AF_PACKET, "AF_VSOCK": AF_VSOCK,
    ]

    /// Whether a name stands for a family of sockets that a filter can allow.
    package static func isFamily(_ name: String) -> Bool { knownFamilies[name] != nil }

    private struct Condition {
        let argument: UInt32
        let mask: UInt64
        let value: UInt64

        init(_ argument: UInt32, _ mask: UInt64, is value: UInt64 = 0) {
            self.argument = argument
            self.mask = mask
            self.value = value
        }
    }

    /// The program for the kernel.
    ///
    /// The corresponding C function is `seccomp_export_bpf`. ELIBACC: libseccomp is not there.
    package func program() throws(SystemError) -> [UInt8] {
        if let problem = ml_seccomp_missing() {
            throw SystemError(
                "\(String(cString: problem)) (the Debian package libseccomp2 has it)", ELIBACC)
        }
        guard let filter = ml_filter_new(EPERM) else { throw SystemError("seccomp_init", ENOMEM) }
        defer { ml_filter_free(filter) }
        func allow(_ name: String, _ conditions: Condition...) throws(SystemError) {
            guard !removed.contains(name), ml_filter_knows(name) != 0 else { return }
            let arguments = conditions.map {
                ml_argument(number: $0.argument, mask: $0.mask, value: $0.value)
            }
            try checkNegative(
                "seccomp_rule_add \(name)",
                ml_filter_allow(filter, name, arguments, UInt32(arguments.count)))
        }
        let conditional = Set(Self.conditional)
        for name in harmlessCalls + added.filter({ !conditional.contains($0) }) { try allow(name) }
        for name in Self.conditional {
            if added.contains(name) {
                try allow(name)
            } else {
                for conditions in self.conditions(of: name) {
                    switch conditions.count {
                    case 0: try allow(name)
                    case 1: try allow(name, conditions[0])
                    default: try allow(name, conditions[0], conditions[1])
                    }
                }
            }
        }
        // glibc then uses clone and openat, whose arguments can be looked at.
        for name in ["clone3", "openat2"] where !added.contains(name) {
            try checkNegative("seccomp_rule_add \(name)", ml_filter_refuse(filter, name, ENOSYS))
        }
        return try exported(filter)
    }

    private static let conditional = [
        "chmod", "clone", "creat", "fchmod", "fchmodat", "fchmodat2", "mkdir", "mkdirat", "mknod",
        "mknodat", "mmap", "mmap2", "mprotect", "open", "openat", "personality", "pkey_mprotect",
        "setns", "shmat", "socket", "unshare",
    ]

    /// The conditions under which a call is allowed: one of the lists must hold, all of it.
    private func conditions(of name: String) -> [[Condition]] {
        let setIDs: UInt64 = 0o6000
        let execute = UInt64(PROT_EXEC)
        let writeExecute = UInt64(PROT_WRITE | PROT_EXEC)
        switch name {
        case "clone", "unshare":
            // CLONE_NEWTIME lies where clone has the signal of the end; it takes it from unshare alone.
            let spaces: UInt64 = 0x7E02_0000 | (name == "unshare" ? 0x80 : 0)
            return mayMakeNamespaces ? [[]] : [[Condition(0, spaces)]]
        case "setns": return mayMakeNamespaces ? [[]] : []
        case "socket":
            guard let families else { return [[]] }
            return families.compactMap { Self.knownFamilies[$0] }.map { family in
                [Condition(0, 0xFFFF_FFFF, is: UInt64(family))]
            }
        case "mmap", "mmap2":
            if mayWriteAndExecute { return [[]] }
            return [0, UInt64(PROT_WRITE), execute].map { [Condition(2, writeExecute, is: $0)] }
        case "mprotect", "pkey_mprotect":
            return mayWriteAndExecute ? [[]] : [[Condition(2, execute)]]
        case "shmat":
            // SHM_EXEC
            return mayWriteAndExecute ? [[]] : [[Condition(2, 0o100000)]]
        case "personality":
            if mayChangePersonality { return [[]] }
            // What it is, and what every process is.
            return [0xFFFF_FFFF, 0].map { [Condition(0, 0xFFFF_FFFF, is: $0)] }
        case "chmod", "fchmod", "mkdir", "mknod", "creat":
            return maySetIDs ? [[]] : [[Condition(1, setIDs)]]
        case "fchmodat", "fchmodat2", "mkdirat", "mknodat":
            return maySetIDs ? [[]] : [[Condition(2, setIDs)]]
        case "open", "openat":
            if maySetIDs { return [[]] }
            let flags: UInt32 = name == "open" ? 1 : 2
            // O_CREAT and O_TMPFILE: without them the mode is whatever was in the register.
            return [[Condition(flags, 0o20000100)], [Condition(flags + 1, setIDs)]]
        default: return []
        }
    }

    private func exported(_ filter: scmp_filter_ctx) throws(SystemError) -> [UInt8] {
        let pipe = try Pipe()
        // A filter is some 3 KiB, and a pipe holds 64.
        try checkNegative("seccomp_export_bpf", ml_filter_write(filter, pipe.writer.raw))
        let (reader, writer) = pipe.split()
        close(writer)
        return try Descriptor(owning: reader).readAll(limit: 1 << 20)
    }
}
