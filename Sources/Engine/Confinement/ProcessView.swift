// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Hypervisors
import Linux
package import Supervisor

/// What a VM's own processes, its supervisor and its hypervisor, see and may take of their host.
///
/// One value for everybody who starts them: Martlet's own launcher carries it out, and a service
/// manager gets it as settings of a unit. It names paths and never looks at them.
package struct ProcessView: Codable, Sendable, Equatable {
    /// A file or folder of the host that is seen at its own path.
    package struct Place: Codable, Sendable, Equatable {
        package var path: String
        /// Whether it is no mistake when it is not there.
        package var isOptional: Bool

        package init(_ path: String, isOptional: Bool = false) {
            self.path = path
            self.isOptional = isOptional
        }
    }

    /// A setting in the words of systemd.exec, such as `ProtectProc` and `invisible`.
    package struct Setting: Codable, Sendable, Equatable {
        package var name: String
        /// Empty for a list of nothing; of several lines, each is a setting of that name.
        package var value: String

        package init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    /// Bounds on what all processes of the VM take together.
    package struct Limits: Codable, Sendable, Equatable {
        /// Percent of one CPU.
        package var cpu: Int?
        /// Bytes, the guest's memory included.
        package var memory: Int64
        /// Bytes a second, for reading and for writing, on the disk that holds `ioPath`.
        package var io: Int64?
        package var ioPath: String
        package var tasks: Int

        package init(of vm: VM, _ files: VMLayout) {
            cpu = vm.limits.cpu?.value
            memory = Int64(vm.memory.max.bytes + vm.limits.memoryOverhead.bytes)
            io = vm.limits.io.map { Int64($0.bytesPerSecond) }
            ioPath = files.disks
            tasks = vm.limits.tasks
        }
    }

    /// Folders that are empty but for the places inside them, whatever else shows them.
    package var hidden: [String]
    /// Seen and not writable, what lies in another after that.
    package var readable: [Place]
    /// Seen and writable: all of them belong to this VM alone.
    package var writable: [Place]
    /// Device nodes; nothing else is in /dev.
    package var devices: [Place]
    /// Whether the hypervisor is itself a client of the host's network, for an interface `user`.
    package var hasNetwork: Bool
    /// The standard ones and the VM's own, each name once.
    package var settings: [Setting]
    package var limits: Limits

    package func setting(_ name: String) -> String? {
        settings.first { $0.name == name }?.value
    }
}

// MARK: - Of a VM

extension ProcessView {
    package static let system = Sandbox.system.map { Place($0.path, isOptional: $0.isOptional) }

    /// What lies outside the folders of the system, and what of this host's layout counts.
    package struct Host: Sendable, Equatable {
        /// ROOT and RUN, also as they are called without links.
        package var own: [String]
        /// The executable of martlet, without links.
        package var program: String
        /// Folders of programs and libraries that the system's do not hold.
        package var libraries: [String]
        /// Where the names of the network's hosts are looked up: /etc/resolv.conf, and the folder
        /// that it leads to where it is a link.
        package var resolver: [String]

        package init(
            own: [String], program: String, libraries: [String] = [], resolver: [String] = []
        ) {
            self.own = own
            self.program = program
            self.libraries = libraries
            self.resolver = resolver
        }
    }

    /// What a VM's processes need: pure, so that a test reads it as a table.
    package init(of vm: VM, _ spec: SuperviseSpec, _ files: VMLayout, _ host: Host) {
        hidden = host.own
        let programs = ([host.program] + host.libraries).filter { !ProcessView.isSystem($0) }
        let image = [spec.launch.kernel] + (spec.launch.initramfs.map { [$0] } ?? [])
        hasNetwork = vm.interfaces.contains { $0.isUser }
        readable =
            ProcessView.system + programs.map { Place($0) }
            + (hasNetwork ? host.resolver.map { Place($0, isOptional: true) } : [])
            + (image + spec.launch.layers).map { Place($0) }
            // The folder and not the files: `launch.json` is replaced while they run.
            + [Place(files.run)]
        writable = [files.disks, files.logs, files.saved, files.lock, files.sockets].map {
            Place($0)
        }
        devices =
            Sandbox.devices.map { Place($0.path) }
            + (spec.launch.accelerator == .kvm ? [Place("/dev/kvm")] : [])
        settings = ProcessView.standard(
            hasNetwork: hasNetwork,
            denyWriteExecute: spec.launch.accelerator == .kvm || spec.launch.splitTranslation)
        limits = Limits(of: vm, files)
        if case .custom(let own) = vm.hardening.confine { override(own) }
    }

    private static func isSystem(_ path: String) -> Bool { isPath(path, within: "/usr") }

    /// The lines of `SystemCallFilter`: what is allowed, and what is not of that.
    package static let calls = [
        "@system-service seccomp",
        "~@privileged @resources @keyring io_uring_setup io_uring_enter io_uring_register "
            + "kcmp process_vm_readv process_vm_writev userfaultfd",
    ]

    /// The settings of every VM, in the order in which systemd.exec explains them.
    ///
    /// `denyWriteExecute` holds for a hypervisor that translates no code, or keeps what it
    /// translates in memory that it never writes where it runs.
    package static func standard(hasNetwork: Bool, denyWriteExecute: Bool) -> [Setting] {
        let families = hasNetwork ? "AF_UNIX AF_INET AF_INET6" : "AF_UNIX"
        return [
            ("ProtectProc", "invisible"), ("ProcSubset", "pid"), ("CapabilityBoundingSet", ""),
            ("AmbientCapabilities", ""), ("NoNewPrivileges", "yes"), ("LimitCORE", "0"),
            ("UMask", "0077"), ("KeyringMode", "private"), ("ProtectSystem", "strict"),
            ("ProtectHome", "yes"), ("PrivateTmp", "yes"), ("PrivateDevices", "yes"),
            ("PrivateNetwork", hasNetwork ? "no" : "yes"), ("PrivateIPC", "yes"),
            ("PrivateMounts", "yes"), ("ProtectHostname", "yes"), ("ProtectClock", "yes"),
            ("ProtectKernelTunables", "yes"), ("ProtectKernelModules", "yes"),
            ("ProtectKernelLogs", "yes"), ("ProtectControlGroups", "yes"),
            ("RestrictAddressFamilies", families), ("RestrictNamespaces", "yes"),
            ("LockPersonality", "yes"), ("MemoryDenyWriteExecute", denyWriteExecute ? "yes" : "no"),
            ("RestrictRealtime", "yes"), ("RestrictSUIDSGID", "yes"), ("RemoveIPC", "yes"),
            ("SystemCallFilter", calls.joined(separator: "\n")),
            ("SystemCallErrorNumber", "EPERM"), ("SystemCallArchitectures", "native"),
        ].map { Setting($0.0, $0.1) }
    }

    /// Puts a VM's own settings in the place of those of the same name, others after them.
    private mutating func override(_ own: [String: String]) {
        for (name, value) in own.sorted(by: { $0.key < $1.key }) {
            if let index = settings.firstIndex(where: { $0.name == name }) {
                // A further line changes the list, as in a unit.
                let isList = name == "SystemCallFilter"
                settings[index].value = isList ? settings[index].value + "\n" + value : value
            } else {
                settings.append(Setting(name, value))
            }
        }
        if let network = setting("PrivateNetwork").flatMap(Self.isYes) { hasNetwork = !network }
    }

    /// The meaning of a yes or no as units write it; nil for anything else.
    package static func isYes(_ value: String) -> Bool? {
        switch value.lowercased() {
        case "1", "yes", "y", "true", "t", "on": true
        case "0", "no", "n", "false", "f", "off": false
        default: nil
        }
    }
}
