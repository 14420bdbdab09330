// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// A key whose meaning Martlet reads and checks but cannot carry out yet.
package struct Unavailable: Equatable {
    package let field: String
    package let reason: String
}

/// Whether Martlet can carry out everything that a VM asks for.
package func isAvailable(_ vm: VM, in fleet: Fleet) -> Bool { unavailable(vm, in: fleet).isEmpty }

/// What a VM asks for that is not available yet, by key; ignoring it would be a lie.
package func unavailable(_ vm: VM, in fleet: Fleet) -> [Unavailable] {
    var found: [Unavailable] = []
    func check(_ field: String, _ isAsked: Bool, _ what: String) {
        if isAsked { found.append(Unavailable(field: field, reason: "\(what): not available yet")) }
    }
    check("host", vm.host != nil, "other hosts")
    check(
        "hypervisor", vm.hypervisor != .auto && vm.hypervisor != .qemu,
        "hypervisors other than qemu")
    let recipes = recipes(of: vm.image, in: fleet)
    check("image", recipes.contains { $0.disk != nil }, "foreign disks")
    check("memory", !vm.memory.isFixed, "a balloon")
    check(
        "limits.network", vm.limits.network != nil && !vm.isOnNetwork,
        "a limit of the network 'user'")
    check("vsock", vm.vsock != .auto && vm.vsock != .off, "vsock")
    check("devices", !vm.devices.isEmpty, "devices of the host")
    check("tpm", vm.tpm, "a virtual TPM")
    check("secureBoot", vm.secureBoot, "secure boot")
    check("kernel.modules", !vm.kernel.modules.isEmpty, "further kernel modules")
    check("warm", vm.warm, "warm start")
    return found
}

/// The recipes that an image is made from, the topmost first.
package func recipes(of image: ImageReference, in fleet: Fleet) -> [ImageRecipe] {
    var recipes: [ImageRecipe] = []
    var next: String?
    switch image {
    case .inline(let recipe):
        recipes = [recipe]
        next = recipe.from
    case .named(let name): next = name
    }
    while let name = next, let recipe = fleet.image(name),
        !recipes.contains(where: { $0.name == name })
    {
        recipes.append(recipe)
        next = recipe.from
    }
    return recipes
}
