// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux
import Planning

extension Engine {
    /// Makes and starts a VM that no fleet declares, and returns its name.
    package func runThrowaway(
        image: String, digest: String, memory: ByteSize?, vcpu: Int?
    ) async throws -> String {
        let name = "run-" + randomHex(8)
        var vm = VM(name: name)
        vm.image = .named(image)
        vm.restart = .no
        vm.autostart = false
        if let memory { vm.memory = Memory(memory) }
        if let vcpu { vm.vcpu = vcpu }
        vm.interfaces[0].mac = Derived.mac(fleet: "", vm: name, interface: 0)
        try await changing(name) { files in
            try await declare(vm, fleet: nil, digest: digest, files)
            _ = try await launch(name, files)
        }
        return name
    }

    /// Purges the throw-away VMs that do not run, and returns their names.
    package func removeThrowaways() async throws -> [String] {
        var removed: [String] = []
        for report in try await observer.observeAll().reports
        where report.vm.name.hasPrefix("run-") && !report.vm.phase.isLive
            && report.vm.fleet == nil && report.vm.applied != nil
        {
            try await purge(report.vm.name)
            removed.append(report.vm.name)
        }
        return removed
    }
}
