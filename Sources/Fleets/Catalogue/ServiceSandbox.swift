// SPDX-License-Identifier: Apache-2.0

extension ServiceUnit.Sandbox {
    /// The settings of the class: what systemd lets the unit do.
    ///
    /// `strict` is for programs that make no code while they run, `jit` for .NET, Node and the like,
    /// `dns` for those that answer on ports below 1024, `privileged` for what governs the guest.
    var lines: [(String, String)] {
        if self == .privileged { return [("UMask", "0077")] }
        let isDNS = self == .dns
        let capabilities = isDNS ? "CAP_NET_BIND_SERVICE" : ""
        let refused = self == .jit ? "~@privileged @debug @mount" : "~@privileged @resources"
        return [
            ("UMask", "0077"), ("NoNewPrivileges", "yes"),
            ("CapabilityBoundingSet", capabilities), ("AmbientCapabilities", capabilities),
            ("ProtectSystem", "strict"), ("ProtectHome", "yes"), ("PrivateTmp", "yes"),
            ("PrivateDevices", "yes"), ("PrivateUsers", isDNS ? "no" : "yes"),
            ("PrivateMounts", "yes"), ("PrivateIPC", "yes"), ("ProtectClock", "yes"),
            ("ProtectControlGroups", "yes"), ("ProtectHostname", "yes"),
            ("ProtectKernelLogs", "yes"), ("ProtectKernelModules", "yes"),
            ("ProtectKernelTunables", "yes"), ("ProtectProc", "invisible"), ("ProcSubset", "pid"),
            ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX AF_NETLINK"),
            ("RestrictNamespaces", "yes"), ("RestrictRealtime", "yes"),
            ("RestrictSUIDSGID", "yes"), ("LockPersonality", "yes"),
            ("MemoryDenyWriteExecute", self == .jit ? "no" : "yes"), ("RemoveIPC", "yes"),
            ("KeyringMode", "private"), ("DevicePolicy", "closed"),
            ("SystemCallArchitectures", "native"), ("SystemCallFilter", "@system-service"),
            ("SystemCallFilter", refused), ("SystemCallErrorNumber", "EPERM"), ("LimitCORE", "0"),
        ]
    }
}
