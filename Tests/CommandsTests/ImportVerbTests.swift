// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Testing

@Suite(.timeLimit(.minutes(20))) struct ImportVerbTests {
    private static let xml = """
        <domain type='kvm'><name>web</name><memory unit='MiB'>512</memory><vcpu>2</vcpu><devices>
        <disk type='file' device='disk'><source file='/nowhere/system.qcow2'/></disk>
        <disk type='file' device='disk'><driver type='qcow2'/>
        <source file='FOLDER/cache.qcow2'/><target dev='vdb'/></disk>
        <interface type='network'><source network='lan'/></interface>
        <sound model='ich9'/></devices></domain>
        """

    /// A folder with a stand-in for `virsh`, the first in PATH, and a disk that the domain names.
    private func makeHost() throws -> String {
        let folder = try Martlet.makeFolder()
        let xml = ImportVerbTests.xml.split(separator: "FOLDER").joined(separator: folder)
        try Files.write("\(folder)/web.xml", xml)
        // What a qcow2 file of 3 GiB begins with.
        let header: [UInt8] =
            [0x51, 0x46, 0x49, 0xFB, 0, 0, 0, 3] + Array(repeating: 0, count: 16)
            + [0, 0, 0, 0, 0xC0, 0, 0, 0]
        try Files.write("\(folder)/cache.qcow2", header)
        try Files.makeFolder("\(folder)/bin")
        let script = """
            #!/bin/sh
            echo "$LIBVIRT_DEFAULT_URI $LC_ALL $*" >>\(folder)/calls
            case "$*" in
            "dumpxml --inactive web") exec cat \(folder)/web.xml ;;
            "dominfo web") printf 'Id:             -\\nAutostart:      disable\\n' ;;
            "net-dumpxml lan")
                echo "<network><name>lan</name><forward mode='bridge'/><bridge name='br7'/></network>" ;;
            *away*) echo "error: failed to connect to the hypervisor" >&2; exit 1 ;;
            *) printf "error: failed to get domain '%s'\\n" "$3" >&2; exit 1 ;;
            esac
            """
        try Files.write("\(folder)/bin/virsh", script, mode: 0o755)
        return folder
    }

    private func run(
        _ folder: String, _ words: String..., input: String = "", withVirsh: Bool = true
    ) async throws -> Output {
        var program = Program("\(Martlet.folder)/martlet", ["import"] + words)
        program.environment = [
            "PATH=\(withVirsh ? "\(folder)/bin:/usr/bin:/bin" : "\(folder)/empty")",
            "HOME=\(folder)", "LC_ALL=C.UTF-8", "LIBVIRT_DEFAULT_URI=test:///default",
        ]
        program.folder = folder
        return try await program.capture(input: Array(input.utf8))
    }

    @Test func aDomainIsAskedOfVirsh() async throws {
        let folder = try makeHost()
        defer { try? Files.remove(folder) }
        let output = try await run(folder, "libvirt", "web")
        #expect(output.exit == .code(0))
        let vm = try #require(FleetFile.parse(output.text).fleet?.vm("web"))
        #expect(vm.vcpu == 2 && !vm.autostart)
        #expect(vm.volumes.map(\.size) == [.gibibytes(3)])
        #expect(vm.interfaces.map(\.network) == ["br7"])
        #expect(output.errorText.contains("note: the sound card ich9: VMs have no sound\n"))
        #expect(output.text.contains("# - the sound card ich9: VMs have no sound\n"))
        let calls = try Files.readText("\(folder)/calls").split(separator: "\n")
        #expect(calls.first == "test:///default C dumpxml --inactive web")
    }

    @Test func theDocumentForScriptsHoldsAllOfIt() async throws {
        let folder = try makeHost()
        defer { try? Files.remove(folder) }
        let output = try await run(folder, "libvirt", "web", "--json")
        #expect(output.errorText == "")
        let document = try JSONValue(parsing: output.standardOutput)
        #expect(document["name"] == "web")
        #expect(document["entry"]?["vcpu"] == 2)
        #expect(document["networks"]?["br7"]?["bridge"] == "br7")
        let yaml = try #require(document["yaml"]?.string)
        #expect(FleetFile.parse(yaml).fleet?.vm("web") != nil)
        let notes = document["notes"]?.elements ?? []
        #expect(notes.contains { $0["what"] == "the sound card ich9" && $0["instead"] == .null })
    }

    @Test func aFileOrStandardInputNeedsNoVirsh() async throws {
        let folder = try makeHost()
        defer { try? Files.remove(folder) }
        for words in [["web.xml"], ["./web.xml"], ["\(folder)/web.xml"]] {
            let output = try await run(folder, "libvirt", words[0], withVirsh: false)
            #expect(FleetFile.parse(output.text).fleet?.vm("web") != nil, "\(words)")
        }
        let xml = try Files.readText("\(folder)/web.xml")
        let output = try await run(folder, "libvirt", "-", input: xml, withVirsh: false)
        #expect(FleetFile.parse(output.text).fleet?.vm("web") != nil)
    }

    @Test func whatCannotBeReadHasItsOwnExitCode() async throws {
        let folder = try makeHost()
        defer { try? Files.remove(folder) }
        try Files.write("\(folder)/bad.xml", "vms: { hello: {} }")
        let unknown = try await run(folder, "libvirt", "wbe")
        #expect(unknown.exit == .code(66))
        #expect(unknown.errorText.hasPrefix("error: libvirt has no domain 'wbe'\nhint: "))
        #expect(try await run(folder, "libvirt", "away").exit == .code(69))
        #expect(try await run(folder, "libvirt", "./none.xml").exit == .code(66))
        #expect(try await run(folder, "libvirt", "./bad.xml").exit == .code(65))
        #expect(try await run(folder, "libvirt", "-", input: "<a/>").exit == .code(65))
        #expect(try await run(folder, "libvirt", "/dev/zero").exit == .code(65))
        #expect(try await run(folder, "libvirt", "./bin").exit == .code(65))
        #expect(try await run(folder, "microvm-nix", "/dev/zero").exit == .code(65))
        let missing = try await run(folder, "libvirt", "web", withVirsh: false)
        #expect(missing.exit == .code(69))
        #expect(missing.errorText.contains("apt-get install libvirt-clients"))
    }

    @Test func aFileIsWrittenOnceAndNeverOverAnother() async throws {
        let folder = try makeHost()
        defer { try? Files.remove(folder) }
        let first = try await run(folder, "libvirt", "web", "--to", "web.yaml")
        #expect(first.exit == .code(0) && first.text == "web.yaml\n")
        let written = try Files.readText("\(folder)/web.yaml")
        #expect(FleetFile.parse(written).fleet?.vm("web") != nil)
        let second = try await run(folder, "libvirt", "./web.xml", "--to", "web.yaml")
        #expect(second.exit == .code(1))
        #expect(second.errorText.contains("hint: Name another file: --to FILE"))
        #expect(try Files.readText("\(folder)/web.yaml") == written)
        let valid = try await Martlet.martlet("validate", "-f", "web.yaml", in: folder)
        #expect(valid.exit == .code(0) && valid.errorText == "")
    }

    @Test func aRunnerIsFoundByFolderPackageOrScript() async throws {
        let folder = try Martlet.makeFolder()
        defer { try? Files.remove(folder) }
        let package = "\(folder)/web/current"
        try Files.makeFolder("\(package)/bin")
        try Files.makeFolder("\(package)/share/microvm/virtiofs/site")
        try Files.write("\(package)/share/microvm/virtiofs/site/source", "site\n")
        try Files.write(
            "\(package)/bin/microvm-run",
            """
            touch \(folder)/ran
            exec -a microvm@web qemu-system-x86_64 -m 512 -smp 2 $(touch \(folder)/ran) \\
              -chardev socket,id=fs0,path=web-virtiofs-site.sock \\
              -device vhost-user-fs-pci,chardev=fs0,tag=site -device vhost-vsock-pci,guest-cid=77
            """)
        for path in ["web", "web/", package, "web/current/bin/microvm-run"] {
            let output = try await run(folder, "microvm-nix", path)
            #expect(output.exit == .code(0), "\(output.errorText)")
            let vm = try #require(FleetFile.parse(output.text).fleet?.vm("web"))
            #expect(vm.shares.map(\.source) == ["\(folder)/web/site"])
            #expect(vm.vsock == .cid(77))
        }
        try Files.write("\(folder)/script", "exec -a microvm@web qemu-system-x86_64 -m 512")
        #expect(try await run(folder, "microvm-nix", "script").exit == .code(0))
        try Files.write("\(folder)/script", "exec bash")
        #expect(try await run(folder, "microvm-nix", "script").exit == .code(65))
        #expect(try await run(folder, "microvm-nix", "none").exit == .code(66))
        #expect(try await run(folder, "microvm-nix", ".").exit == .code(66))
        #expect(!Files.exists("\(folder)/ran"))
    }
}
