// SPDX-License-Identifier: Apache-2.0
import Hypervisors
import Testing

@Suite struct QEMULaunchTests {
    static let small = LaunchSpec(
        name: "web", uuid: "0b4f6f5e-4d8e-4b7e-9e0e-1f2a3b4c5d6e", accelerator: .tcg, cpu: "max",
        vcpu: 1, memoryBytes: 512 << 20, kernel: "/img/vmlinux", initramfs: "/img/initramfs",
        kernelParameters: ["quiet"], layers: ["/layers/a.erofs"],
        disks: [.init(path: "/vms/web/data.qcow2", format: .qcow2, serial: "data")],
        interfaces: [
            .init(
                mac: "02:00:00:00:00:01",
                backend: .user(
                    forwards: [
                        .init(hostPort: 2201, guestPort: 22),
                        .init(.udp, hostAddress: "0.0.0.0", hostPort: 5353, guestPort: 53),
                    ], restrict: false))
        ],
        firmwareEntries: [
            .init(name: "opt/io.systemd.credentials/system.hostname", path: "/run/web/hostname")
        ])

    @Test func startsAnImageUnderTCG() throws {
        let golden = """
            -name guest=web
            -uuid 0b4f6f5e-4d8e-4b7e-9e0e-1f2a3b4c5d6e
            -nodefaults -no-user-config -display none -no-reboot
            -machine q35,dump-guest-core=off,hpet=off,sata=off,smbus=off,smm=off,vmport=off
            -accel tcg,thread=multi
            -cpu max
            -smp 1
            -m 512M
            -device virtio-rng-pci
            -kernel /img/vmlinux
            -initrd /img/initramfs
            -append console
            -chardev socket,id=console,fd=3
            -serial chardev:console
            -chardev socket,id=qmp,fd=4
            -mon chardev=qmp,mode=control
            -device virtio-serial-pci,id=ports,max_ports=4,event_idx=off
            -chardev socket,id=agent,fd=5
            -device virtserialport,bus=ports.0,id=agent-port,chardev=agent,name=org.qemu.guest_agent.0
            -chardev socket,id=ready,fd=6
            -device virtserialport,bus=ports.0,id=ready-port,chardev=ready,name=org.martlet.ready
            -chardev socket,id=ssh,fd=7,server=on,wait=off
            -device virtserialport,bus=ports.0,id=ssh-port,chardev=ssh,name=org.martlet.ssh
            -blockdev driver=raw,node-name=layer0,read-only=on,file.driver=file,file.filename=/layers/a.erofs
            -device virtio-blk-pci,drive=layer0,id=layer0-dev,serial=layer0
            -blockdev driver=qcow2,node-name=disk-data,discard=unmap,detect-zeroes=unmap,file.driver=file,file.filename=/vms/web/data.qcow2,file.discard=unmap
            -device virtio-blk-pci,drive=disk-data,id=disk-data-dev,serial=data
            -netdev user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:2201-:22,hostfwd=udp:0.0.0.0:5353-:53
            -device virtio-net-pci,netdev=net0,mac=02:00:00:00:00:01,romfile=
            -fw_cfg name=opt/io.systemd.credentials/system.hostname,file=/run/web/hostname
            -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
            """
        let words = golden.split(whereSeparator: { $0 == " " || $0 == "\n" })
            .map { $0 == "console" ? "console=ttyS0 panic=-1 quiet" : String($0) }
        #expect(try QEMU().commandLine(Self.small, Channels()) == words)
    }

    /// What a change of the spec adds to the command line, and what it takes away.
    private func difference(
        _ channels: Channels = Channels(), _ change: (inout LaunchSpec) -> Void
    ) throws -> (added: [String], removed: [String]) {
        var spec = Self.small
        let before = try QEMU().commandLine(spec, Channels())
        change(&spec)
        let delta = try QEMU().commandLine(spec, channels).difference(from: before)
        func text(_ change: CollectionDifference<String>.Change) -> String {
            switch change {
            case .insert(_, let element, _), .remove(_, let element, _): element
            }
        }
        return (delta.insertions.map(text), delta.removals.map(text))
    }

    @Test func parametersThatAreGivenAreNotDoubled() throws {
        let delta = try difference { $0.kernelParameters = ["quiet", "panic=-1", "console=ttyS0"] }
        #expect(delta.added == ["quiet panic=-1 console=ttyS0"])
    }

    @Test func kvmReplacesTheTranslator() throws {
        let delta = try difference {
            $0.accelerator = .kvm
            $0.cpu = "host"
        }
        #expect(delta.added == ["kvm", "host"])
        #expect(delta.removed == ["tcg,thread=multi", "max"])
    }

    @Test func boundsTheTranslationCache() throws {
        let delta = try difference {
            $0.translationCacheBytes = 64 << 20
            $0.splitTranslation = true
        }
        #expect(delta.added == ["tcg,thread=multi,tb-size=64,split-wx=on"])
    }

    @Test func microvmHasNoPCI() throws {
        let line = try difference { $0.machine = .microvm }.added
        #expect(line.contains("microvm,acpi=on,dump-guest-core=off,rtc=on"))
        #expect(line.contains("virtio-blk-device,drive=layer0,id=layer0-dev,serial=layer0"))
        #expect(line.contains("virtio-net-device,netdev=net0,mac=02:00:00:00:00:01"))
        #expect(!line.contains { $0.contains("-pci") || $0.contains("romfile") })
    }

    @Test func sharedMemoryIsAMemfd() throws {
        let delta = try difference { $0.sharedMemory = true }
        #expect(
            delta.added == [
                "q35,dump-guest-core=off,hpet=off,memory-backend=memory,sata=off,smbus=off,smm=off,"
                    + "vmport=off", "-object",
                "memory-backend-memfd,id=memory,size=512M,share=on",
            ])
    }

    @Test func tapsComeAsDescriptors() throws {
        let delta = try difference(Channels(taps: 1)) {
            $0.interfaces.append(.init(mac: "02:00:00:00:00:02", backend: .tap(slot: 0)))
        }
        #expect(
            delta.added == [
                "-netdev", "tap,id=net1,fd=9", "-device",
                "virtio-net-pci,netdev=net1,mac=02:00:00:00:00:02,romfile=",
            ])
    }

    @Test func sharesAreConnectionsAndMakeTheMemoryShared() throws {
        let delta = try difference(Channels(taps: 1, shares: 2)) {
            $0.shares = [
                .init(tag: "data", socket: "/run/a.sock"), .init(tag: "a,b", socket: "/run/b.sock"),
            ]
        }
        #expect(delta.added.first?.contains("memory-backend=memory") == true)
        #expect(
            delta.added.dropFirst() == [
                "-object", "memory-backend-memfd,id=memory,size=512M,share=on",
                "-chardev", "socket,id=share0,fd=10",
                "-device", "vhost-user-fs-pci,chardev=share0,tag=data",
                "-chardev", "socket,id=share1,fd=11",
                "-device", "vhost-user-fs-pci,chardev=share1,tag=a,,b",
            ])
    }

    @Test func devicesAndReadOnlyDisks() throws {
        let delta = try difference(Channels(taps: 1, devices: 1)) {
            $0.disks.append(.init(path: "/dev/zvol/a,b", format: .device, serial: "raw"))
            $0.disks.append(.init(path: "/x", format: .raw, serial: "ro", readOnly: true))
        }
        #expect(
            delta.added.contains(
                "driver=raw,node-name=disk-raw,discard=unmap,detect-zeroes=unmap,"
                    + "file.driver=host_device,file.filename=/dev/fdset/10,file.discard=unmap"))
        #expect(delta.added.contains("fd=10,set=10"))
        #expect(
            delta.added.contains(
                "driver=raw,node-name=disk-ro,read-only=on,file.driver=file,file.filename=/x"))
    }

    @Test func manyFirmwareEntriesNeedMoreSlots() throws {
        let delta = try difference {
            $0.firmwareEntries += (0..<13).map { .init(name: "opt/\($0)", path: "/f\($0)") }
        }
        #expect(delta.added.starts(with: ["-global", "fw_cfg_io.x-file-slots=128"]))
    }

    @Test func optionalDevices() throws {
        let delta = try difference {
            $0.balloon = true
            $0.vsockCID = 42
            $0.oemStringFiles = ["/oem/0"]
        }
        #expect(
            delta.added == [
                "-device", "virtio-balloon-pci,id=balloon0,deflate-on-oom=on", "-device",
                "vhost-vsock-pci,guest-cid=42", "-smbios", "type=11,path=/oem/0",
            ])
    }

    static let mistakes: [(LaunchError, @Sendable (inout LaunchSpec) -> Void)] = [
        (
            .deviceSlot("/dev/sdb"),
            { $0.disks.append(.init(path: "/dev/sdb", format: .device, serial: "raw")) }
        ),
        (.memorySize(1000), { $0.memoryBytes = 1000 }),
        (.tapSlot(0), { $0.interfaces[0].backend = .tap(slot: 0) }),
        (.serial("123456789012345678901"), { $0.disks[0].serial = "123456789012345678901" }),
        (
            .oemStrings,
            {
                $0.machine = .microvm
                $0.oemStringFiles = ["/oem"]
            }
        ),
        (
            .hostAddress("::1"),
            {
                $0.interfaces[0].backend = .user(
                    forwards: [.init(hostAddress: "::1", hostPort: 1, guestPort: 1)],
                    restrict: true)
            }
        ),
        (
            .firmwareName(String(repeating: "x", count: 56)),
            { $0.firmwareEntries[0].name = String(repeating: "x", count: 56) }
        ),
        (.shareSlot("data"), { $0.shares = [.init(tag: "data", socket: "/s")] }),
        (
            .sharesOnMicrovm,
            {
                $0.machine = .microvm
                $0.shares = [.init(tag: "data", socket: "/s")]
            }
        ),
        (
            .tooManyDevices(26),
            { $0.shares = Array(repeating: .init(tag: "data", socket: "/s"), count: 23) }
        ),
        (.tooManyDevices(25), { $0.layers = Array(repeating: "/l", count: 23) }),
    ]

    @Test(arguments: mistakes.indices) func refuses(_ index: Int) {
        let (error, change) = Self.mistakes[index]
        var spec = Self.small
        change(&spec)
        #expect(throws: error) { try QEMU().commandLine(spec, Channels()) }
    }
}
