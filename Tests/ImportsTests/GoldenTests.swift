// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Imports
import Linux
import Testing

/// Documents of other tools beside this file, and the fleet file that each becomes.
///
/// With `MARTLET_GOLDENS=write` in the environment they are written anew, to be read before they
/// are committed.
@Suite struct GoldenTests {
    static let folder = Files.parent(#filePath) + "/Goldens"

    /// What the importers see of a host that is made up.
    static var host: HostView {
        HostView(
            file: { path in
                let files = [
                    "/pkg/share/microvm/macvtap-interfaces":
                        "vm-uplink 02:00:00:00:00:12 enp6s0 private\n",
                    "/pkg/share/microvm/virtiofs/site/source": "/srv/site\n",
                    "/pkg/share/microvm/virtiofs/ro-store/source": "/nix/store\n",
                    "/pkg/share/microvm/virtiofs/media/source": "media\n",
                    "/pkg/share/microvm/virtiofs/docs/source": "/srv/docs\n",
                    "/pkg/share/microvm/system/etc/fstab": """
                    # This is a generated file.
                    tmpfs / tmpfs x-initrd.mount,mode=0755 0 0
                    /dev/disk/by-label/var /var ext4 x-initrd.mount 0 2
                    /dev/disk/by-label/cache /srv/my\\040cache xfs defaults 0 2
                    /dev/disk/by-label/home /home btrfs defaults 0 2
                    site /srv/www virtiofs defaults 0 0
                    """,
                    "/nix/store/hash-firecracker-fc.json": """
                    {"boot-source": {"kernel_image_path": "/nix/store/k", "initrd_path": "/nix/store/i",
                      "boot_args": "console=ttyS0 noapic acpi=off reboot=k panic=1 i8042.noaux quiet"},
                     "machine-config": {"vcpu_count": 3, "mem_size_mib": 768, "smt": true},
                     "drives": [{"drive_id": "store", "path_on_host": "/nix/store/s.erofs",
                       "is_root_device": false, "is_read_only": true, "io_engine": "Async"},
                      {"drive_id": "var.img", "path_on_host": "var.img", "is_read_only": false}],
                     "network-interfaces": [{"iface_id": "vm-fc", "host_dev_name": "vm-fc",
                       "guest_mac": "02:00:00:00:00:81", "rx_rate_limiter": {}}],
                     "vsock": {"guest_cid": 9, "uds_path": "notify.vsock"}, "mmds-config": {}}
                    """,
                ]
                return files[path].map { Array($0.utf8) }
            },
            disk: { path in
                switch path {
                case "/var/lib/libvirt/images/web.qcow2": .init(bytes: 20 << 30, isQCOW2: true)
                case "/srv/vm/data.qcow2": .init(bytes: (5 << 30) + 512, isQCOW2: true)
                case "/srv/vm/archive.raw": .init(bytes: 3 << 30)
                case "/dev/zvol/tank/web": .init(bytes: 0, isDevice: true)
                default: nil
                }
            },
            network: { name in
                guard name == "default" else { return nil }
                return Array(
                    """
                    <network><name>default</name><forward mode='nat'/><bridge name='virbr0'/>
                    <ip address='192.168.122.1' netmask='255.255.255.0'/></network>
                    """.utf8)
            })
    }

    static let documents = [
        "debian.xml", "bridge.xml", "macvtap.xml", "passt.xml", "disks.xml", "hostile-names.xml",
        "qemu.sh", "qemu-user.sh", "cloud-hypervisor.sh", "firecracker.sh", "odd.sh", "hostile.sh",
        "kvmtool.sh", "crosvm.sh", "alioth.sh", "stratovirt.sh", "guide.sh", "guide.xml",
    ]

    static func imported(_ name: String) throws -> Imported {
        let bytes = try Files.read("\(folder)/\(name)")
        if name.hasSuffix(".xml") {
            return try LibvirtDomain.read(bytes, autostart: name != "disks.xml", host: host)
        }
        let hasPackage = [
            "guide.sh", "qemu.sh", "cloud-hypervisor.sh", "crosvm.sh", "firecracker.sh",
        ]
        let isInstalled = hasPackage.contains(name)
        return try MicrovmRunner.read(
            MicrovmRunner.Place(
                path: name, script: bytes, package: isInstalled ? "/pkg" : nil,
                base: isInstalled ? "/var/lib/microvms/web" : nil), host: host)
    }

    @Test(arguments: documents)
    func theEntryIsTheExpectedOne(_ name: String) throws {
        let yaml = try GoldenTests.imported(name).yaml
        let golden = "\(GoldenTests.folder)/\(name).yaml"
        if environment("MARTLET_GOLDENS") == "write" {
            try Files.write(golden, yaml, mode: 0o644)
        }
        #expect(yaml == (try? Files.readText(golden)))
    }

    /// With its comments, in a fleet of its own, and beside others.
    @Test(arguments: documents)
    func theEntryPassesTheReaderOfFleetFiles(_ name: String) throws {
        let imported = try GoldenTests.imported(name)
        let file = FleetFile.parse(imported.yaml)
        #expect(file.diagnostics.map(\.description) == [])
        #expect(file.fleet?.vms.map(\.name) == [imported.name])
        let json = try JSONValue(parsing: imported.json.text())
        #expect(json["name"]?.string == imported.name)
        #expect(json["yaml"]?.string == imported.yaml)
        #expect(json["notes"]?.elements.count == imported.notes.count)
    }

    /// What is in files of secrets, or was a secret in a definition, is written nowhere.
    @Test(arguments: documents)
    func noSecretIsWrittenDown(_ name: String) throws {
        let text = try GoldenTests.imported(name).json.text()
        for secret in ["hunter2", "swordfish"] { #expect(!text.contains(secret)) }
    }

    @Test(arguments: documents)
    func nothingIsEverRun(_ name: String) throws {
        _ = try GoldenTests.imported(name)
        #expect(!Files.exists("/tmp/martlet-import-ran"))
    }
}
