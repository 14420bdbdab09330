// SPDX-License-Identifier: Apache-2.0

/// A VM that a verb makes from another one, and that the fleet file does not name.
package struct AddedVM: Sendable, Equatable {
    /// As its first generation records it: with MACs and tap names of its own.
    package private(set) var vm: VM
    /// The override that declares it, as text.
    package let text: String
    /// What the source has and the new one has not, each in words with the reason.
    package let dropped: [String]

    /// Takes over all that two VMs can have at once.
    ///
    /// Everything else would clash, or would make both do the same work: it is left out, and named.
    package init(_ source: VM, named name: String, fleet: String, origin: String) {
        var (vm, dropped) = source.withoutUniqueParts()
        vm.name = name
        text = AddedVM.text(vm, fleet: fleet, origin: origin)
        for index in vm.interfaces.indices {
            vm.interfaces[index].mac = Derived.mac(fleet: fleet, vm: name, interface: index)
            vm.interfaces[index].tap =
                vm.interfaces[index].isUser
                ? nil : Derived.tap(fleet: fleet, vm: name, interface: index)
        }
        if source.interfaces.contains(where: { $0.address != nil }) {
            dropped.append("its addresses, of which the new VM gets its own")
        }
        self.vm = vm
        self.dropped = dropped
    }

    /// The same with what only a fleet that reads its declaration knows: what its service says to it
    /// under its own name.
    package func read(in fleet: Fleet) -> AddedVM {
        var added = self
        if let vm = fleet.vm(vm.name) { added.vm = vm }
        return added
    }

    /// One key a line, as other verbs that write overrides expect it.
    ///
    /// Every key is there, those without a value as `null`: the fleet's defaults shall not fill in
    /// what the source did not have.
    private static func text(_ vm: VM, fleet: String, origin: String) -> String {
        let members = vm.json.members
        let all = VM.schema["properties"]?.members.map(\.key) ?? []
        let absent = all.filter { key in
            !mergeKeys.contains(key) && !members.contains { $0.key == key }
        }
        let lines =
            members.map { "\($0.key): \($0.value.text())" } + absent.map { "\($0): null" }
        return """
            # \(origin)
            # A VM of the fleet though its file does not name it. To move it there, put all but 'add'
            # under its name in 'vms:', and remove this file.
            \(addKey): \(JSONValue.string(fleet).text())
            \(lines.joined(separator: "\n"))

            """
    }
}

/// The key of an override that makes it a VM of the fleet that it names.
let addKey = "add"

/// Whether a text can be the name of a VM.
package func isNameOfVM(_ text: String) -> Bool { isName(text) }

extension VM {
    /// The VM without what only one VM can have, and what that was.
    fileprivate func withoutUniqueParts() -> (VM, dropped: [String]) {
        var vm = self
        var dropped: [String] = []
        func drop(_ isThere: Bool, _ what: String) { if isThere { dropped.append(what) } }
        drop(!ports.isEmpty, "ports of the host (\(ports.map { "\($0.host)" }.list))")
        vm.ports = []
        drop(!publish.isEmpty, "published host names, which lead to one VM")
        vm.publish = []
        drop(!devices.isEmpty, "devices of the host")
        vm.devices = []
        drop(
            !shares.isEmpty,
            "shares (\(shares.map(\.source).list)), which two VMs would write to")
        vm.shares = []
        vm.shared = false
        let disks = volumes.filter { $0.device != nil }
        drop(!disks.isEmpty, "volumes on devices (\(disks.map(\.name).list))")
        vm.volumes.removeAll { $0.device != nil }
        drop(snapshots?.schedule != nil, "scheduled snapshots")
        vm.snapshots = nil
        drop(backups?.schedule != nil, "scheduled backups")
        vm.backups = nil
        drop(uuid != nil, "the given UUID")
        vm.uuid = nil
        if case .cid = vsock {
            dropped.append("the given vsock address")
            vm.vsock = .auto
        }
        // It holds the name and the host of the VM that it was made for; the service makes it anew.
        // The secrets stay those of the source: what they encrypt is among the data.
        if service != nil { vm.credentials[ServiceCredential.environment] = nil }
        for index in vm.interfaces.indices {
            vm.interfaces[index].mac = nil
            vm.interfaces[index].tap = nil
            vm.interfaces[index].address = nil
        }
        return (vm, dropped)
    }
}

extension Sequence<String> {
    fileprivate var list: String { joined(separator: ", ") }
}
