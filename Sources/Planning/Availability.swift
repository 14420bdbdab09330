// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// A key whose meaning Martlet reads and checks but cannot carry out yet.
package struct Unavailable: Equatable {
    package let field: String
    package let reason: String
}

/// Whether Martlet can carry out everything that a VM asks for.
package func isAvailable(_ vm: VM) -> Bool { unavailable(vm).isEmpty }

/// What a VM asks for that is not available yet, by key; ignoring it would be a lie.
package func unavailable(_ vm: VM) -> [Unavailable] {
    var found: [Unavailable] = []
    func check(_ field: String, _ isAsked: Bool, _ what: String) {
        if isAsked { found.append(Unavailable(field: field, reason: "\(what): not available yet")) }
    }
    check("service", vm.service != nil, "services from the catalogue")
    check("host", vm.host != nil, "other hosts")
    check(
        "hypervisor", vm.hypervisor != .auto && vm.hypervisor != .qemu,
        "hypervisors other than qemu")
    check("image", vm.image.isForeign, "OCI images and foreign disks")
    check("memory", !vm.memory.isFixed, "a balloon")
    check("publish", !vm.publish.isEmpty, "publishing")
    check(
        "limits.network", vm.limits.network != nil && !vm.isOnNetwork,
        "a limit of the network 'user'")
    check("vsock", vm.vsock != .auto && vm.vsock != .off, "vsock")
    check("devices", !vm.devices.isEmpty, "devices of the host")
    check("tpm", vm.tpm, "a virtual TPM")
    check("secureBoot", vm.secureBoot, "secure boot")
    check("kernel.modules", !vm.kernel.modules.isEmpty, "further kernel modules")
    check("warm", vm.warm, "warm start")
    check(
        "health",
        vm.health.contains { $0.http.map { $0.isSecure || $0.host != nil } ?? false },
        "checks over https or of another host")
    return found
}

extension ImageReference {
    /// Whether it is something that Martlet did not build from packages.
    fileprivate var isForeign: Bool {
        if case .inline(let recipe) = self { return recipe.oci != nil || recipe.disk != nil }
        return false
    }
}
