// SPDX-License-Identifier: Apache-2.0

/// Everything a hypervisor needs to start one VM, as plain data.
///
/// It is written to disk by `prepare` and read by the supervisor, so it names files and never
/// holds a secret: credentials and OEM strings are paths of files that only the VM's uid can read.
package struct LaunchSpec: Codable, Sendable, Equatable {
    package var name: String
    package var uuid: String
    package var accelerator: Accelerator
    package var machine: Machine
    /// Further machine properties, such as `["hpet": "off"]`.
    package var machineOptions: [String: String]
    /// The CPU model with its flags, such as `max`, `host` or `max,cx16=off`.
    package var cpu: String
    package var vcpu: Int
    /// A multiple of 1 MiB.
    package var memoryBytes: Int64
    /// Memory that other processes may map.
    package var sharedMemory: Bool
    /// An uncompressed ELF kernel with a PVH entry (`vmlinux`), or a bzImage.
    package var kernel: String
    package var initramfs: String?
    package var kernelParameters: [String]
    /// Raw, read-only erofs files; the guest finds them by the serials `layer0`, `layer1` and so on.
    package var layers: [String]
    package var disks: [Disk]
    package var interfaces: [Interface]
    /// They make the memory shared.
    package var shares: [Share] = []
    package var firmwareEntries: [FirmwareEntry]
    /// Files that hold one OEM string each (SMBIOS type 11, so q35 only).
    package var oemStringFiles: [String]
    package var vsockCID: UInt32?
    package var randomGenerator: Bool
    package var balloon: Bool
    /// Bound of the translation cache under TCG; nil is QEMU's default of up to 1 GiB.
    package var translationCacheBytes: Int64?
    /// Keeps translated code in memory that is never writable and executable at once, as
    /// `MemoryDenyWriteExecute=` demands.
    package var splitTranslation: Bool

    package init(
        name: String, uuid: String, accelerator: Accelerator, machine: Machine = .q35,
        machineOptions: [String: String] = [:], cpu: String, vcpu: Int, memoryBytes: Int64,
        sharedMemory: Bool = false, kernel: String, initramfs: String? = nil,
        kernelParameters: [String] = [], layers: [String] = [], disks: [Disk] = [],
        interfaces: [Interface] = [], firmwareEntries: [FirmwareEntry] = [],
        oemStringFiles: [String] = [], vsockCID: UInt32? = nil, randomGenerator: Bool = true,
        balloon: Bool = false, translationCacheBytes: Int64? = nil, splitTranslation: Bool = false
    ) {
        self.name = name
        self.uuid = uuid
        self.accelerator = accelerator
        self.machine = machine
        self.machineOptions = machineOptions
        self.cpu = cpu
        self.vcpu = vcpu
        self.memoryBytes = memoryBytes
        self.sharedMemory = sharedMemory
        self.kernel = kernel
        self.initramfs = initramfs
        self.kernelParameters = kernelParameters
        self.layers = layers
        self.disks = disks
        self.interfaces = interfaces
        self.firmwareEntries = firmwareEntries
        self.oemStringFiles = oemStringFiles
        self.vsockCID = vsockCID
        self.randomGenerator = randomGenerator
        self.balloon = balloon
        self.translationCacheBytes = translationCacheBytes
        self.splitTranslation = splitTranslation
    }

    package enum Machine: String, Codable, Sendable { case q35, microvm }

    /// How many of the interfaces are taps, and how many of the disks block devices: each needs a
    /// descriptor.
    package var tapCount: Int {
        interfaces.count { if case .tap = $0.backend { true } else { false } }
    }
    package var deviceCount: Int { disks.count { $0.format == .device } }

    /// A writable disk, or a further read-only one; the guest finds it by its serial.
    package struct Disk: Codable, Sendable, Equatable {
        package var path: String
        package var format: Format
        /// At most 20 bytes, all that virtio-blk carries.
        package var serial: String
        package var readOnly: Bool

        package enum Format: String, Codable, Sendable { case raw, qcow2, device }

        /// The hypervisor's own name for it, whatever its place among the others.
        package var node: String { "disk-\(serial)" }

        package init(path: String, format: Format, serial: String, readOnly: Bool = false) {
            self.path = path
            self.format = format
            self.serial = serial
            self.readOnly = readOnly
        }
    }

    /// A folder of the host, served by a daemon of its own.
    package struct Share: Codable, Sendable, Equatable {
        /// The name the guest mounts it by; at most 36 bytes.
        package var tag: String
        /// Where the daemon listens.
        package var socket: String

        package init(tag: String, socket: String) {
            self.tag = tag
            self.socket = socket
        }
    }

    package struct Interface: Codable, Sendable, Equatable {
        package var mac: String
        package var backend: Backend

        package enum Backend: Codable, Sendable, Equatable {
            /// NAT inside the hypervisor: needs no privilege. `restrict` closes it but for the forwards.
            case user(forwards: [Forward], restrict: Bool)
            /// A tap that someone else has opened: the index into the descriptors passed on.
            case tap(slot: Int)
        }

        package init(mac: String, backend: Backend) {
            self.mac = mac
            self.backend = backend
        }
    }

    /// A port of the host that leads into the guest.
    package struct Forward: Codable, Sendable, Equatable {
        package enum Transport: String, Codable, Sendable { case tcp, udp }
        package var transport: Transport
        /// An IPv4 address of the host.
        package var hostAddress: String
        package var hostPort: UInt16
        package var guestPort: UInt16

        package init(
            _ transport: Transport = .tcp, hostAddress: String = "127.0.0.1", hostPort: UInt16,
            guestPort: UInt16
        ) {
            self.transport = transport
            self.hostAddress = hostAddress
            self.hostPort = hostPort
            self.guestPort = guestPort
        }
    }

    /// One fw_cfg file: how identity and credentials reach the guest.
    package struct FirmwareEntry: Codable, Sendable, Equatable {
        /// The whole name, such as `opt/io.systemd.credentials/system.hostname`; at most 55 bytes.
        package var name: String
        package var path: String

        package init(name: String, path: String) {
            self.name = name
            self.path = path
        }
    }
}
