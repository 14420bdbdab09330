// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Testing

@testable import Fleets

@Suite struct RecordTests {
    private func example() throws -> VM {
        var vm = VM(name: "web")
        vm.memory = Memory(min: .mebibytes(256), max: .gibibytes(1))
        vm.ports = [PortForward(host: 8080, guest: 80)]
        vm.health = [HealthCheck()]
        vm.health[0].http = HTTPTarget("http://:80/")
        vm.image = .inline(try ImageRecipe(record: ["packages": ["htop"]]))
        vm.volumes = [try Volume(record: ["name": "cache", "size": "20GiB", "mount": "/srv"])]
        vm.rootPasswordHash = PasswordHash("$y$j9T$salt$hash")
        vm.credentials["key"] = try Credential(record: ["secret": "api"])
        return vm
    }

    @Test func roundTrip() throws {
        var vm = try example()
        let text = vm.json.text(pretty: true)
        vm.name = ""  // the record's place is its name
        #expect(try VM(record: JSONValue(parsing: text)) == vm)
    }

    @Test func codable() throws {
        let vm = try example()
        let data = try JSONEncoder().encode(vm)
        #expect(try JSONDecoder().decode(VM.self, from: data) == vm)
    }

    @Test func olderRecordTakesDefaults() throws {
        #expect(try VM(record: ["vcpu": 2]).memory == Memory(.mebibytes(512)))
    }

    @Test func newerRecordIsRefused() throws {
        let error = #expect(throws: RecordError.self) {
            try VM(record: ["vcpu": 1, "stop": ["grace": "3s", "hurry": true]])
        }
        #expect(error?.message == "stop.hurry: unknown key 'hurry'; known: grace")
    }

    @Test func differences() throws {
        let old = try example()
        var new = old
        new.memory = Memory(.gibibytes(2))
        new.ssh.user = "root"
        new.uuid = Derived.uuid(fleet: "a", vm: "b")
        new.volumes[0].size = .gibibytes(30)
        new.volumes.append(try Volume(record: ["name": "raw", "device": "/dev/x"]))
        new.rootPasswordHash = nil
        new.ports.append(PortForward(.any, host: 53, guest: 53, .udp))
        let changes = new.differences(from: old).map {
            "\($0.field): \($0.from ?? "-") -> \($0.to ?? "-")"
        }
        #expect(
            changes.sorted() == [
                "memory: {min: 256MiB, max: 1GiB} -> 2GiB",
                "ports: [8080:80] -> [8080:80, 53:53/udp]",
                "rootPasswordHash: (hidden) -> -",
                "ssh.user: admin -> root",
                "uuid: - -> \(new.uuid?.text ?? "")",
                "volumes[cache].size: 20GiB -> 30GiB",
                "volumes[raw]: - -> {name: raw, device: /dev/x, filesystem: ext4, format: raw, "
                    + "readOnly: false}",
            ])
        #expect(old.differences(from: old).isEmpty)
    }
}
