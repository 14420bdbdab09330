// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Supervisor
import Testing

@testable import Engine

struct ProcessViewTests {
    let files = Layout(root: "/r", run: "/run/m").vm("web")

    private func vm(_ keys: String = "") throws -> VM {
        let loaded = FleetFile.parse(
            "networks: { lan: { subnet: 10.1.0.0/24 } }\nvms: { web: { \(keys) } }")
        return try #require(loaded.fleet?.vm("web"), "\(loaded.diagnostics)")
    }

    private func view(
        _ vm: VM, accelerator: Hypervisors.Accelerator = .tcg, libraries: [String] = []
    ) -> ProcessView {
        let launch = LaunchSpec(
            name: "web", uuid: "", accelerator: accelerator, cpu: "max", vcpu: 1,
            memoryBytes: 1 << 29, kernel: "/r/images/i/vmlinux", initramfs: "/r/images/i/initramfs",
            layers: ["/r/layers/a.erofs", "/r/layers/b.erofs"])
        let spec = SuperviseSpec(
            name: "web", generation: 1, imageDigest: "i", launch: launch,
            hypervisor: "/usr/bin/qemu-system-x86_64",
            paths: SuperviseSpec.Paths(
                lock: files.lock, runRecord: files.runRecord, exitRecord: files.exitRecord,
                consoleLog: files.consoleLog, eventLog: files.events, runFolder: files.sockets,
                spec: files.launch))
        return ProcessView(
            of: vm, spec, files,
            .init(
                own: ["/r", "/run/m"], program: "/usr/bin/martlet", libraries: libraries,
                resolver: ["/etc/resolv.conf"]))
    }

    @Test func itShowsTheVMsOwnFilesAndNoOthers() throws {
        let view = view(try vm())
        #expect(view.hidden == ["/r", "/run/m"])
        let system = ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin"]
        #expect(
            view.readable.map(\.path) == system + [
                "/etc/alternatives", "/etc/ld.so.cache", "/etc/resolv.conf", "/r/images/i/vmlinux",
                "/r/images/i/initramfs", "/r/layers/a.erofs", "/r/layers/b.erofs", "/run/m/web",
            ])
        #expect(
            view.writable.map(\.path) == [
                "/r/vms/web/disks", "/r/vms/web/logs", "/r/vms/web/saved", "/r/vms/web/lock",
                "/run/m/web/sockets",
            ])
        #expect(!view.devices.contains { $0.path == "/dev/kvm" })
        #expect(view.hasNetwork && view.setting("PrivateNetwork") == "no")
        #expect(view.setting("RestrictAddressFamilies") == "AF_UNIX AF_INET AF_INET6")
    }

    @Test func itShowsProgramsWhereverTheyAre() throws {
        let view = view(try vm(), libraries: ["/opt/qemu/bin", "/usr/local/lib"])
        let paths = view.readable.map(\.path)
        #expect(paths.contains("/opt/qemu/bin") && !paths.contains("/usr/local/lib"))
        #expect(!paths.contains("/usr/bin/martlet"))
    }

    @Test func withoutAUserInterfaceThereIsNoNetwork() throws {
        let view = view(try vm("interfaces: [{ network: lan }]"), accelerator: .kvm)
        #expect(!view.hasNetwork && view.setting("PrivateNetwork") == "yes")
        #expect(view.setting("RestrictAddressFamilies") == "AF_UNIX")
        #expect(!view.readable.contains { $0.path == "/etc/resolv.conf" })
        #expect(view.setting("MemoryDenyWriteExecute") == "yes")
        #expect(view.devices.contains { $0.path == "/dev/kvm" })
    }

    @Test func aVMsOwnSettingsTakeThePlaceOfTheStandardOnes() throws {
        let view = view(
            try vm("hardening: { confine: { ProtectProc: noaccess, OOMScoreAdjust: 500 } }"))
        #expect(view.settings.filter { $0.name == "ProtectProc" }.map(\.value) == ["noaccess"])
        #expect(view.settings.last == .init("OOMScoreAdjust", "500"))
        #expect(Set(view.settings.map(\.name)).count == view.settings.count)
    }

    @Test func limitsHoldTheGuestsMemoryToo() throws {
        let own = "cpu: 150%, memoryOverhead: 512MiB, io: 5MiB/s, tasks: 64"
        let limits = view(try vm("memory: 1GiB, limits: { \(own) }")).limits
        #expect(limits.cpu == 150 && limits.io == 5 << 20 && limits.tasks == 64)
        #expect(limits.memory == 3 << 29 && limits.ioPath == "/r/vms/web/disks")
        let plain = view(try vm()).limits
        #expect(plain.cpu == nil && plain.io == nil && plain.tasks == 128)
    }
}
