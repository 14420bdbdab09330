// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

/// VMs that are declared by an override alone.
@Suite struct AddedVMTests {
    private func load(
        _ fleet: String, _ overrides: [String: String]
    ) -> FleetFile {
        var sources = FleetFile.Sources { _ in Array(fleet.utf8) }
        for (name, text) in overrides {
            sources.overrides[name] = .init(
                path: "overrides/\(name).yaml", bytes: Array(text.utf8))
        }
        return FleetFile.load("fleet.yaml", from: sources)
    }

    private let full = """
        fleet: test
        networks: { lan: { subnet: 10.9.0.0/24 } }
        defaults: { memory: 1GiB, snapshots: { schedule: daily }, credentials: { a: { text: x } } }
        vms:
          web:
            memory: 384MiB
            uuid: 6e0bc1f2-6b0e-4a6e-8f0b-0123456789ab
            interfaces: [{ network: lan, address: 10.9.0.7, mac: "52:54:00:00:00:01" }]
            ports: ["127.0.0.1:2201:22"]
            vsock: 77
            volumes: [{ name: big, size: 1GiB }, { name: dev, device: /dev/sdz }]
            shares: [{ source: /srv, mount: /srv }]
            backups: { schedule: weekly }
            users: [{ name: jo }]
            health: { exec: "true" }
        """

    @Test func isTheSameButForWhatWouldClash() throws {
        let source = try #require(load(full, [:]).fleet?.vm("web"))
        let new = AddedVM(source, named: "copy", fleet: "test", origin: "Cloned from web.")
        let file = load(full, ["copy": new.text])
        #expect(file.diagnostics == [])
        let vm = try #require(file.fleet?.vm("copy"))
        #expect(vm == new.vm)
        #expect(file.fleet?.vms.map(\.name) == ["web", "copy"])
        // Defaults fill in nothing: neither memory nor a schedule.
        #expect(vm.memory == source.memory && vm.snapshots == nil && vm.backups == nil)
        #expect(vm.users == source.users && vm.health == source.health)
        #expect(vm.credentials == source.credentials)
        #expect(vm.ports == [] && vm.shares == [] && vm.uuid == nil && vm.vsock == .auto)
        #expect(vm.volumes.map(\.name) == ["big"])
        #expect(vm.interfaces[0].address == nil)
        #expect(vm.interfaces[0].mac != source.interfaces[0].mac)
        let said = new.dropped.joined(separator: "; ")
        for word in [
            "2201", "/srv", "dev", "scheduled snapshots", "scheduled backups", "UUID", "vsock",
            "addresses",
        ] { #expect(said.contains(word), "\(word): \(said)") }
    }

    /// What a service says to a VM under its name is said to the new one under its own; what
    /// encrypts its data stays.
    @Test func aServiceSpeaksToTheNewOneByItsName() throws {
        let fleet = """
            fleet: test
            networks: { lan: { subnet: 10.9.0.0/24 } }
            vms:
              web:
                service: wiki
                interfaces: [{ network: lan }]
                with: { title: Notes }
                publish: [{ host: wiki.example.org }]
                credentials: { own: { text: mine } }
            """
        func load(_ overrides: [String: String]) -> FleetFile {
            var sources = FleetFile.Sources { _ in Array(fleet.utf8) }
            sources.services = ["wiki"]
            sources.service = { _ in .init(path: "wiki.yaml", bytes: Array(wikiEntry.utf8)) }
            for (name, text) in overrides {
                sources.overrides[name] = .init(path: "o/\(name).yaml", bytes: Array(text.utf8))
            }
            return FleetFile.load("fleet.yaml", from: sources)
        }
        let source = try #require(load([:]).fleet?.vm("web"))
        #expect(source.credentials["env"]?.text?.contains("https://wiki.example.org/") == true)
        let added = AddedVM(source, named: "copy", fleet: "test", origin: "Cloned from web.")
        #expect(!added.text.contains("of web") && !added.text.contains("wiki.example.org"))
        let file = load(["copy": added.text])
        #expect(file.errors == [])
        let read = try #require(file.fleet)
        let vm = try #require(read.vm("copy"))
        #expect(vm.credentials["env"]?.text == "WIKI_TITLE=\"Notes of copy\"\n")
        #expect(vm.credentials["key"]?.secret == "web-key")
        #expect(vm.credentials["own"]?.text == "mine")
        #expect(added.read(in: read).vm == vm, "its first generation has it already")
        #expect(added.read(in: read).text == added.text)
    }

    @Test func showNamesTheOverride() throws {
        let source = try #require(load(full, [:]).fleet?.vm("web"))
        let new = AddedVM(source, named: "copy", fleet: "test", origin: "Cloned from web.")
        let keys = try #require(load(full, ["copy": new.text]).effective("copy"))
        let memory = try #require(keys.first { $0.path == "memory" })
        #expect(memory.value == "384MiB" && memory.origin.hasPrefix("overrides/copy.yaml:"))
    }

    @Test func onlyWhatSaysSoComesAlive() {
        let fleet = "fleet: test\nvms: { web: {} }"
        let names = { (overrides: [String: String]) in
            load(fleet, overrides).fleet?.vms.map(\.name)
        }
        #expect(names(["gone": "memory: 512MiB\n"]) == ["web"])
        #expect(names(["other": "add: elsewhere\nmemory: 512MiB\n"]) == ["web"])
        // What is not ours may be broken without being our business.
        #expect(names(["other": "add: elsewhere\nmemory: ["]) == ["web"])
        #expect(names(["new": "add: test\nmemory: 512MiB\n"]) == ["web", "new"])
        #expect(names(["No Name": "add: test\n"]) == ["web"])
    }

    @Test func mistakesPointIntoTheOverride() throws {
        let file = load(
            "fleet: test\nvms: { web: { ports: ['127.0.0.1:80:80'] } }",
            ["new": "add: test\nmemory: lots\nports: ['127.0.0.1:80:80']\n"])
        #expect(file.fleet == nil)
        let mistake = try #require(file.errors.first { $0.message.contains("lots") })
        #expect(mistake.file == "overrides/new.yaml" && mistake.line == 2)
    }

    @Test func theKeyStandsNowhereElse() {
        for text in [
            "vms: { web: { add: test } }", "defaults: { add: test }\nvms: {}",
            "profiles: { a: { add: test } }\nvms: {}", "add: test\nvms: {}",
        ] {
            let errors = load("fleet: test\n" + text, [:]).errors
            #expect(errors.contains { $0.message.contains("unknown key 'add'") }, "\(text)")
        }
    }

    @Test func aVMThatTheFileHasByNowIsSaidToBeDecidedElsewhere() throws {
        let file = load(
            "fleet: test\nvms: { web: { memory: 1GiB } }",
            ["web": "add: test\nmemory: 512MiB\n"])
        #expect(file.fleet?.vm("web")?.memory.max == .mebibytes(512))
        #expect(file.diagnostics.map(\.severity) == [.warning])
        #expect(file.diagnostics.first?.file == "overrides/web.yaml")
    }
}
