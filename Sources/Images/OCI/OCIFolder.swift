// SPDX-License-Identifier: Apache-2.0
import Fleets

/// A folder that the program of an OCI image keeps: a volume of the image, or one that a service of
/// the catalogue names.
struct OCIFolder: Equatable {
    /// Where the program sees it.
    let path: String
    /// Where it is on the data volume.
    let place: String
    /// What it starts with, as a path in the image without links.
    let origin: String
    /// The permissions that a service wants for it; nil for a volume, which has the image's.
    var mode: FileMode?

    /// All of an image; `resolve` finds what a path is in the image.
    ///
    /// What a service names and the image has as a volume is there once, where the service says.
    static func all<E: Error>(
        _ config: OCIConfig, _ service: OCIService?, resolve: (String) throws(E) -> String
    ) throws(E) -> [OCIFolder] {
        var folders: [OCIFolder] = []
        for state in service?.state ?? [] {
            guard let mount = state.mount else { continue }
            folders.append(
                OCIFolder(
                    path: mount, place: state.path, origin: try resolve(mount), mode: state.mode))
        }
        let taken = folders.map(\.origin)
        for (path, name) in volumeNames(config.volumes) {
            let origin = try resolve(path)
            if taken.contains(origin) { continue }
            folders.append(
                OCIFolder(
                    path: path, place: "\(OCIUnits.state)/volumes/\(name)", origin: origin))
        }
        return folders
    }

    /// A volume's folder below `state`/volumes, by its path.
    static func volumeNames(_ paths: [String]) -> [(path: String, name: String)] {
        var taken: Set<String> = []
        return paths.sorted().map { path in
            let base = path.dropFirst().map { $0 == "/" ? "-" : String($0) }.joined()
            var name = base
            var number = 2
            while !taken.insert(name).inserted {
                name = "\(base)-\(number)"
                number += 1
            }
            return (path, name)
        }
    }
}
