// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// What a hypervisor needs to start a VM from an image.
package struct BootFiles: Sendable, Equatable {
    package let kernel: String
    package let initramfs: String
    /// The layers' files, the lowest first; as disks they have the serials `layer0`, `layer1` and so on.
    package let layers: [String]
    package let commandLine: String
    /// SHA-256 of the kernel and the initramfs, by path.
    package let digests: [String: String]
}

/// The images of one ROOT: files named by their digests, and names that point to them.
///
///     layers/<sha256>.erofs, .vmlinux, .modules    shared parts
///     images/<sha256>/                             manifest.json, vmlinux, initramfs
///     images/names/<name>                          the digest of the image of that name
///     cache/recipes/<key>.json                     which layer a recipe gave
///     cache/debs/                                  downloaded packages
///     cache/sources/<sha256>                       archives and the like, and folders of wheels
///     quarantine/                                  what could not be loaded
package struct ImageStore: Sendable {
    package let root: String

    package init(root: String) { self.root = root }

    /// The kinds of parts, by the ending of their files.
    enum Part: String, CaseIterable { case erofs, vmlinux, modules }

    func part(_ digest: String, _ kind: Part) -> String {
        "\(root)/layers/\(digest).\(kind.rawValue)"
    }
    func folder(_ digest: String) -> String { "\(root)/images/\(digest)" }
    private func nameFile(_ name: String) -> String { "\(root)/images/names/\(name)" }
    func recipeFile(_ key: String) -> String { "\(root)/cache/recipes/\(key).json" }
    var debs: String { "\(root)/cache/debs" }
    var sources: String { "\(root)/cache/sources" }

    /// The files to start a VM from.
    package func bootFiles(_ image: ImageManifest) -> BootFiles {
        let kernel = "\(folder(image.digest))/vmlinux"
        let initramfs = "\(folder(image.digest))/initramfs"
        return BootFiles(
            kernel: kernel, initramfs: initramfs,
            layers: image.layers.map { part($0.digest, .erofs) },
            commandLine: "\(image.commandLine) martlet.layers=\(image.layers.count)",
            digests: [kernel: image.kernel, initramfs: image.initramfs])
    }

    // MARK: Reading

    /// The image of that name or digest (with or without `sha256:`); nil when there is none.
    package func resolve(_ reference: String) throws(ImageError) -> ImageManifest? {
        var digest = reference.hasPrefix("sha256:") ? String(reference.dropFirst(7)) : reference
        if !isDigest(digest) {
            guard ImageStore.isName(reference), Files.exists(nameFile(reference)) else {
                return nil
            }
            digest = try system { () throws(SystemError) in
                String(try Files.readText(nameFile(reference)).prefix { $0 != "\n" })
            }
            guard isDigest(digest) else {
                throw .damaged(path: nameFile(reference), reason: "it holds no digest")
            }
        }
        return Files.exists(folder(digest)) ? try load(digest) : nil
    }

    /// Reads one image and checks that its parts are there in their full size.
    func load(_ digest: String) throws(ImageError) -> ImageManifest {
        let path = "\(folder(digest))/manifest.json"
        let text = try system { () throws(SystemError) in try Files.readText(path) }
        let json: JSONValue
        do { json = try JSONValue(parsing: text) } catch {
            throw .damaged(path: path, reason: error.description)
        }
        let manifest = try ImageManifest(json, path: path)
        guard manifest.digest == digest else {
            throw .damaged(path: path, reason: "it describes the image \(manifest.digest)")
        }
        for name in ["vmlinux", "initramfs"] where !Files.exists("\(folder(digest))/\(name)") {
            throw .damaged(path: folder(digest), reason: "the file \(name) is missing")
        }
        for layer in manifest.layers {
            let file = part(layer.digest, .erofs)
            guard let status = try? Files.status(file) else {
                throw .damaged(path: folder(digest), reason: "the layer \(file) is missing")
            }
            guard status.size == layer.bytes else {
                throw .damaged(
                    path: file, reason: "it has \(status.size) bytes instead of \(layer.bytes)")
            }
        }
        return manifest
    }

    /// The names and the digests that they point to.
    package func names() throws(ImageError) -> [String: String] {
        var result: [String: String] = [:]
        for name in try system({ () throws(SystemError) in
            try Files.list("\(root)/images/names")
        }) {
            guard let text = try? Files.readText(nameFile(name)) else { continue }
            result[name] = String(text.prefix { $0 != "\n" })
        }
        return result
    }

    /// All images that can be loaded, and a sentence for each that cannot.
    ///
    /// A damaged one is moved to `quarantine/`, never deleted; one of a newer martlet stays.
    package func list() throws(ImageError) -> (images: [ImageManifest], problems: [String]) {
        var images: [ImageManifest] = []
        var problems: [String] = []
        for entry in try system({ () throws(SystemError) in try Files.list("\(root)/images") })
        where isDigest(entry) {
            do {
                images.append(try load(entry))
            } catch  where !Files.exists(folder(entry)) {
                // Another martlet has taken it away meanwhile.
                continue
            } catch .damaged(let path, let reason) {
                let error = ImageError.damaged(path: path, reason: reason)
                problems.append("\(error); \(quarantine(folder(entry)))")
            } catch {
                problems.append(error.description)
            }
        }
        return (images, problems)
    }

    /// Moves what cannot be loaded out of the way and says where it is now.
    func quarantine(_ path: String) -> String {
        do {
            try Files.makeFolder("\(root)/quarantine", mode: 0o700)
            for number in 1... {
                let target = "\(root)/quarantine/\(Files.name(path)).\(number)"
                do {
                    try Files.renameNew(path, target)
                    return "it was moved to \(target)"
                } catch  where error.isExisting {
                    continue
                }
            }
        } catch {
            return "it was left in place (\(error))"
        }
        return "it was left in place"
    }

    // MARK: Writing

    /// Names that may become part of a path.
    static func isName(_ name: String) -> Bool {
        !name.isEmpty && name.utf8.count <= 128 && !name.hasPrefix(".")
            && name.utf8.allSatisfy {
                ($0 >= 48 && $0 <= 57) || ($0 | 32 >= 97 && $0 | 32 <= 122) || $0 == 45
                    || $0 == 46 || $0 == 95
            }
    }

    /// Takes a finished file into the store under its digest; an equal one that is there is kept.
    func take(_ file: String, _ kind: Part) async throws -> (digest: String, bytes: Int64) {
        let digest = try await blocking { try SHA256.file(file) }
        return (digest, try keep(file, kind, digest: digest))
    }

    /// Takes a file whose digest is known, and returns its size.
    ///
    /// A damaged one in its place goes to `quarantine/`; guests that have it open keep it.
    @discardableResult
    func keep(_ file: String, _ kind: Part, digest: String) throws(SystemError) -> Int64 {
        let target = part(digest, kind)
        let bytes = try Files.status(file).size
        let isThere = Files.exists(target)
        if isThere, ImageStore.damage(of: target, digest: digest) == nil {
            try Files.remove(file)
        } else {
            if isThere { _ = quarantine(target) }
            try Files.makeFolder("\(root)/layers")
            try check("chmod \(file)") { chmod(file, 0o444) }
            try Descriptor.open(file, O_RDONLY).sync()
            try Files.rename(file, target)
            try Files.syncFolder("\(root)/layers")
        }
        return bytes
    }

    /// Adds an image whose parts are in the store, and lets its name point to it.
    ///
    /// With `verify`, one that is there and damaged goes to `quarantine/`, and is made anew.
    func add(
        _ image: ImageManifest, initramfs: [UInt8], isImported: Bool = false, verify: Bool = false
    ) throws(ImageError) {
        try system { () throws(SystemError) in
            let target = folder(image.digest)
            if verify, Files.exists(target), !isSound(image) { _ = quarantine(target) }
            if !Files.exists(target) {
                // The last word is the process, for removeUnfinished; it may add an image twice at once.
                let fresh = "\(root)/images/.new.\(randomHex(8)).\(getpid())"
                try Files.makeFolder(fresh)
                do throws(SystemError) {
                    try ImageStore.share(part(image.kernel, .vmlinux), "\(fresh)/vmlinux")
                    try Files.write("\(fresh)/initramfs", initramfs, mode: 0o444)
                    let text = image.json.text(pretty: true) + "\n"
                    try Files.write("\(fresh)/manifest.json", text, mode: 0o444)
                    try Files.renameNew(fresh, target)
                } catch {
                    try? Files.remove(fresh)
                    // Another martlet was faster: the same digest is the same image.
                    if !error.isExisting { throw error }
                }
                try Files.syncFolder("\(root)/images")
            }
        }
        try setName(image.name, image.digest, isImported: isImported)
    }

    /// Whether an image's own folder is complete, and holds what it held at first.
    private func isSound(_ image: ImageManifest) -> Bool {
        let boot = bootFiles(image)
        return (try? load(image.digest)) != nil
            && ImageStore.damage(of: boot.kernel, digest: image.kernel) == nil
            && ImageStore.damage(of: boot.initramfs, digest: image.initramfs) == nil
    }

    func setName(
        _ name: String, _ digest: String, isImported: Bool = false
    ) throws(ImageError) {
        guard ImageStore.isName(name) else { throw .badName(name) }
        try system { () throws(SystemError) in
            try Files.makeFolder("\(root)/images/names")
            let text = digest + "\n" + (isImported ? "imported\n" : "")
            try Files.write(nameFile(name), text, mode: 0o644)
        }
    }

    /// Whether the image of that name came from a file and was not built here since.
    package func isImported(_ name: String) -> Bool {
        guard ImageStore.isName(name), let text = try? Files.readText(nameFile(name)) else {
            return false
        }
        return text.split(separator: "\n").dropFirst().first == "imported"
    }

    /// A second name for a file; the kernel of all images of one base takes its space once.
    static func share(_ from: String, _ to: String) throws(SystemError) {
        try check("link \(from) to \(to)") { link(from, to) }
    }

    /// Removes an image and its names; refuses when VMs use it.
    ///
    /// `inUse` maps digests to the VMs that were started from them or will be.
    package func remove(
        _ reference: String, inUse: [String: [String]]
    ) async throws {
        guard let image = try resolve(reference) else { throw ImageError.missing(reference) }
        if let users = inUse[image.digest], !users.isEmpty {
            throw ImageError.inUse(image: reference, by: users)
        }
        for (name, digest) in try names() where digest == image.digest {
            try Files.remove(nameFile(name))
        }
        try removeFolder(image.digest)
        _ = try prune(inUse: Set(inUse.keys))
    }

    /// Removes what nothing refers to, and returns the bytes that became free.
    ///
    /// That is: images without a name, parts and packages of no image, leftovers of killed builds.
    ///
    /// While a build runs, parts stay: it may be about to refer to them.
    package func prune(inUse: Set<String>) throws -> Int64 {
        var freed = try WorkFolder.sweep(root)
        guard try WorkFolder.active(root) == 0 else { return freed }
        let named = Set(try names().values)
        var kept: [ImageManifest] = []
        for image in try list().images {
            if named.contains(image.digest) || inUse.contains(image.digest) {
                kept.append(image)
            } else {
                try removeFolder(image.digest)
            }
        }
        try removeUnfinished()
        let parts = Set(kept.flatMap { $0.layers.map(\.digest) + [$0.kernel] })
        var records: [(path: String, record: LayerRecord)] = []
        for file in try Files.list("\(root)/cache/recipes") {
            let path = "\(root)/cache/recipes/\(file)"
            if let record = LayerRecord(path: path), parts.contains(record.layer.digest) {
                records.append((path, record))
            } else {
                try Files.remove(path)
            }
        }
        let modules = Set(records.compactMap { $0.record.boot?.modules })
        for file in try Files.list("\(root)/layers") {
            let digest = String(file.prefix { $0 != "." })
            if parts.contains(digest) || modules.contains(digest) { continue }
            freed += try removeCounted("\(root)/layers/\(file)")
        }
        let files = Set(records.flatMap(\.record.sources))
        for file in try Files.list(sources) where !files.contains(file) {
            freed += try removeCounted("\(sources)/\(file)")
        }
        let packages = Set(kept.flatMap { $0.packages.map { "\($0.key)_\($0.value)" } })
        for file in try Files.list(debs) where file.hasSuffix(".deb") {
            let words = file.replacing("%3a", with: ":").split(separator: "_")
            if packages.contains(words.prefix(2).joined(separator: "_")) { continue }
            freed += try removeCounted("\(debs)/\(file)")
        }
        return freed
    }

    /// Takes an image away at once: one that lost a file alone would be taken for a damaged one.
    private func removeFolder(_ digest: String) throws(SystemError) {
        let gone = "\(root)/images/.gone.\(randomHex(8)).\(getpid())"
        do throws(SystemError) {
            try Files.renameNew(folder(digest), gone)
        } catch {
            // Another martlet was faster.
            if !error.isMissing { throw error }
        }
        try Files.remove(gone)
    }

    /// Removes image folders that a killed martlet was making or taking away.
    private func removeUnfinished() throws(SystemError) {
        for name in try Files.list("\(root)/images") where name.hasPrefix(".") {
            let owner = name.split(separator: ".").last.flatMap { Int32($0) }
            if let owner, kill(owner, 0) == 0 || errno != ESRCH { continue }
            try Files.remove("\(root)/images/\(name)")
        }
    }

    private func removeCounted(_ path: String) throws(SystemError) -> Int64 {
        let bytes = try Files.status(path).allocated
        try Files.remove(path)
        return bytes
    }
}

/// Runs system calls and reports their failure as one of images.
func system<R>(_ body: () throws(SystemError) -> R) throws(ImageError) -> R {
    do { return try body() } catch {
        throw error.isNoSpace ? .noSpace(path: error.what) : .system(error)
    }
}

/// The path of a program, or the Debian package that brings it.
func tool(_ name: String, package: String) throws(ImageError) -> String {
    guard let path = findProgram(name) else {
        throw .missingTool(name: name, package: package)
    }
    return path
}
