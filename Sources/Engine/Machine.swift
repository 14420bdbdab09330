// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Images
import Linux
import Supervisor

/// Turns a generation into what its supervisor is to do; pure, so that a test reads it as a table.
struct MachinePlan {
    let generation: GenerationRecord
    let files: VMLayout
    let uuid: String
    let accelerator: Hypervisors.Accelerator
    let hypervisor: String
    let boot: BootFiles
    let entries: [LaunchSpec.FirmwareEntry]
    let oemStringFiles: [String]
    /// Whether its user-mode network leads nowhere.
    var isRestricted = false

    private var vm: VM { generation.vm }

    func superviseSpec() -> SuperviseSpec {
        var spec = SuperviseSpec(
            name: vm.name, generation: generation.number, imageDigest: generation.imageDigest,
            launch: launchSpec(), hypervisor: hypervisor,
            paths: SuperviseSpec.Paths(
                lock: files.lock, runRecord: files.runRecord, exitRecord: files.exitRecord,
                consoleLog: files.consoleLog, eventLog: files.events, runFolder: files.sockets,
                spec: files.launch))
        spec.bootFiles = boot.digests
        spec.apply(vm)
        return spec
    }

    private func launchSpec() -> LaunchSpec {
        var spec = LaunchSpec(
            name: vm.name, uuid: uuid, accelerator: accelerator,
            machine: vm.machine == .microvm ? .microvm : .q35,
            cpu: accelerator == .kvm ? "host" : "max", vcpu: vm.vcpu,
            memoryBytes: Int64(vm.memory.max.bytes), sharedMemory: vm.shared,
            kernel: boot.kernel,
            initramfs: boot.initramfs,
            kernelParameters: kernelParameters(), layers: boot.layers,
            disks: files.disks(of: vm).map(\.launch),
            interfaces: interfaces(), firmwareEntries: entries, oemStringFiles: oemStringFiles)
        if accelerator == .tcg {
            spec.translationCacheBytes = translationCache
            spec.splitTranslation = deniesWriteExecute
        }
        spec.shares = vm.shares.enumerated().map { index, share in
            LaunchSpec.Share(tag: share.tag, socket: files.shareSocket(index))
        }
        return spec
    }

    /// The image's words, ours, and those of the file, which win.
    ///
    /// There is one `lsm=` list: one of the file's takes the place of the image's.
    func kernelParameters() -> [String] {
        let own = Set(vm.kernel.parameters.map(parameterName))
        let image = words(boot.commandLine).filter {
            let name = parameterName($0)
            return name != "lsm" || !own.contains(name)
        }
        let hardening = vm.hardening.kernelParameters.filter { !own.contains(parameterName($0)) }
        return image + hardening + emulationParameters + diskParameters + vm.kernel.parameters
    }

    /// What the guest's kernel cannot find out by itself when its CPUs are emulated.
    ///
    /// Their time stamp counters are in step and never stop, but they start so far apart that the
    /// kernel distrusts them; reading any other clock leaves the emulated CPU each time.
    private var emulationParameters: [String] {
        accelerator == .tcg ? ["tsc=reliable", "no_timer_check"] : []
    }

    /// Whether init puts a folder of the data volume over the image (guest/overlay.c), and how long
    /// systemd waits for the disks of volumes: one that came after systemd's own 90 seconds, as on a
    /// host that is busy and emulates, would stay unmounted without a unit that failed.
    private var diskParameters: [String] {
        (vm.mode == .immutable ? [] : ["martlet.mode=\(vm.mode.rawValue)"])
            + (vm.volumes.contains { $0.mount != nil }
                ? ["systemd.default_device_timeout_sec=300"] : [])
    }

    /// Whether the VM asks for memory that is never written where it is executed.
    ///
    /// As a standard that is left to KVM: QEMU then maps all that it translates twice, and a boot took
    /// a tenth longer.
    private var deniesWriteExecute: Bool {
        guard case .custom(let settings) = vm.hardening.confine else { return false }
        return settings["MemoryDenyWriteExecute"].flatMap(ProcessView.isYes) ?? false
    }

    /// Half of what its processes may take beyond the guest's memory: QEMU's own bound is higher than
    /// that of the control group may be, which would end it.
    private var translationCache: Int64 {
        let bytes = Int64(vm.limits.memoryOverhead.bytes) / 2
        return min(max(bytes, 16 << 20), 256 << 20) / (1 << 20) * (1 << 20)
    }

    private func words(_ line: String) -> [String] { line.split(separator: " ").map(String.init) }

    /// QEMU forwards ports itself only where the main interface is `user`; else the host does.
    private func interfaces() -> [LaunchSpec.Interface] {
        var slot = -1
        return vm.interfaces.enumerated().map { index, interface in
            if !interface.isUser { slot += 1 }
            let forwards = index == vm.mainInterface ? vm.ports.map(LaunchSpec.Forward.init) : []
            return LaunchSpec.Interface(
                mac: interface.mac?.description ?? "",
                backend: interface.isUser
                    ? .user(forwards: forwards, restrict: isRestricted) : .tap(slot: slot))
        }
    }
}

/// What comes before a parameter's `=`; `-` and `_` are the same to the kernel.
func parameterName(_ word: String) -> String {
    String(word.prefix { $0 != "=" }).replacing("-", with: "_")
}

extension SuperviseSpec {
    /// Takes over what the host alone uses: a running supervisor can read this part again.
    mutating func apply(_ vm: VM) {
        boot.deadline = vm.boot.deadline.seconds
        restart.policy = .init(vm.restart)
        stopGrace = vm.stop.grace.seconds
        health = vm.health.compactMap { HealthCheck($0, of: vm) }
    }
}

extension SuperviseSpec.Restart.Policy {
    init(_ policy: RestartPolicy) {
        self =
            switch policy {
            case .no: .no
            case .onFailure: .onFailure
            case .always: .always
            }
    }
}

extension SuperviseSpec.HealthCheck {
    init?(_ check: Fleets.HealthCheck, of vm: VM) {
        guard let asked = check.probe else { return nil }
        let probe: Probe =
            switch asked {
            case .http(let target) where target.host == nil && !target.isSecure:
                .http(port: target.port, path: target.path)
            case .http(let target):
                .page(
                    Page(
                        isSecure: target.isSecure, host: target.host, port: target.port,
                        path: target.path, isVerified: !target.isOfGuest(vm)))
            case .tcp(let port): .tcp(port: port.number)
            case .dns(let name): .dns(name: name)
            case .exec(let command): .exec(command: command)
            }
        self.init(probe)
        interval = check.interval.seconds
        timeout = check.timeout.seconds
        retries = check.retries
        startup = check.startup.seconds
    }
}

extension LaunchSpec.Forward {
    init(_ port: PortForward) {
        self.init(
            port.transport == .udp ? .udp : .tcp,
            hostAddress: port.address.isAny ? "0.0.0.0" : port.address.description,
            hostPort: port.host, guestPort: port.guest)
    }
}
