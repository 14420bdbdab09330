// SPDX-License-Identifier: Apache-2.0

/// Everything one fleet file declares, valid by construction: only `FleetFile` makes one.
package struct Fleet: Sendable, Equatable {
    package internal(set) var name = ""
    package internal(set) var images: [ImageRecipe] = []
    /// The images of the services that its VMs name, once each.
    package internal(set) var serviceImages: [ImageRecipe] = []
    package internal(set) var networks: [Network] = []
    package internal(set) var allow: [Opening] = []
    package internal(set) var trusted: [String] = []
    package internal(set) var publishing = Publishing()
    package internal(set) var advertise = Advertisement.none
    package internal(set) var secrets: [Secret] = []
    package internal(set) var hosts: [Host] = []
    /// In the order of the file.
    package internal(set) var vms: [VM] = []

    package func vm(_ name: String) -> VM? { vms.first { $0.name == name } }
    package func network(_ name: String) -> Network? { networks.first { $0.name == name } }
    package func image(_ name: String) -> ImageRecipe? {
        images.first { $0.name == name } ?? serviceImages.first { $0.name == name }
    }
    package func secret(_ name: String) -> Secret? { secrets.first { $0.name == name } }
}
