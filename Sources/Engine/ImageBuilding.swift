// SPDX-License-Identifier: Apache-2.0
package import Fleets
package import Images
import Linux
package import Planning

extension Engine {
    private var builder: Builder { Builder(store: images) }

    /// The name under which an image is built: that of a recipe which stands inline is its VM's.
    package static func imageName(of vm: VM) -> String {
        switch vm.image {
        case .named(let name): name
        case .inline: "vm.\(vm.name)"
        }
    }

    /// The fleet's recipes, those that stand inline in VMs among them.
    package static func recipes(of fleet: Fleet?) -> [ImageRecipe] {
        guard let fleet else { return [] }
        let inline = fleet.vms.compactMap { vm -> ImageRecipe? in
            guard case .inline(var recipe) = vm.image else { return nil }
            recipe.name = imageName(of: vm)
            return recipe
        }
        return fleet.images + fleet.serviceImages + inline
    }

    /// The image of a VM as far as it is known without building anything.
    ///
    /// What the current recipes and the packages of the last build give is what is declared; newer
    /// packages come in with `build --refresh` alone.
    package func desiredImage(of vm: VM, in fleet: Fleet) -> DesiredImage {
        let name = Engine.imageName(of: vm)
        let image = present(name, in: fleet)
        return image.map { .built(digest: $0.digest) } ?? .unbuilt(name: name)
    }

    /// The digest that a VM's image has by now; nil when it has to be built first.
    package func newestDigest(of vm: VM, in fleet: Fleet?) -> String? {
        present(Engine.imageName(of: vm), in: fleet)?.digest
    }

    private func present(_ name: String, in fleet: Fleet?) -> ImageManifest? {
        if let image = try? imported(name, in: fleet) { return image }
        return try? builder.current(name, recipes: Engine.recipes(of: fleet))
    }

    /// The image from a file that stands for this name instead of what the recipes would give.
    ///
    /// Of the images that Martlet brings along that is one which was imported and not built since.
    /// A recipe of the fleet file may have been changed, so there it counts only where nothing can
    /// be built: without root.
    private func imported(_ name: String, in fleet: Fleet?) throws -> ImageManifest? {
        let recipes = Engine.recipes(of: fleet)
        if !recipes.contains(where: { $0.name == name }), images.isImported(name) {
            return try images.resolve(name)
        }
        guard !isRoot, (try? builder.current(name, recipes: recipes)) == nil else { return nil }
        return try images.resolve(name)
    }

    /// Builds what is missing of these images, and returns them by name; with `verify`, also what
    /// is damaged.
    package func buildImages(
        _ names: [String], in fleet: Fleet?, refresh: Bool = false, verify: Bool = false
    ) async throws -> [String: ImageManifest] {
        let built = try await builder.ensure(
            names, recipes: Engine.recipes(of: fleet), refresh: refresh, verify: verify
        ) { reporter.working($0.image, $0.step) }
        return built
    }

    /// The digest of one image, built if it has to be.
    package func ensureImage(named name: String, in fleet: Fleet?) async throws -> String {
        // A recipe may have changed since, also one that stands inline in a VM.
        if let image = try images.resolve(name), !LayerRecipe.builtIn.contains(name),
            !Engine.recipes(of: fleet).contains(where: { $0.name == name })
        {
            return image.digest
        }
        if let image = try imported(name, in: fleet) { return image.digest }
        guard let image = try await buildImages([name], in: fleet)[name] else {
            throw ImageError.unknownImage(name)
        }
        return image.digest
    }

    /// Builds the images of the VMs that are to be changed; each that fails costs only its own VMs.
    ///
    /// Returns the digest of each VM's image, and why others have none.
    package func buildImages(
        for fleet: Fleet, only names: [String]
    ) async -> (digests: [String: String], failures: [String: any Error]) {
        var digests: [String: String] = [:]
        var failures: [String: any Error] = [:]
        var vms = fleet.vms.filter { vm in
            vm.enable && (names.isEmpty || names.contains(vm.name)) && isAvailable(vm, in: fleet)
                && !isPinned(vm.name)
        }
        failures = await mendImages(
            for: fleet.vms.filter { $0.enable && (names.isEmpty || names.contains($0.name)) },
            in: fleet)
        for vm in vms { digests[vm.name] = keptImage(of: vm) }
        vms.removeAll { digests[$0.name] != nil }
        for (image, users) in Dictionary(grouping: vms, by: Engine.imageName)
            .sorted(by: { $0.key < $1.key })
        {
            do {
                let digest = try await ensureImage(named: image, in: fleet)
                for vm in users { digests[vm.name] = digest }
            } catch {
                reporter.finished(image, ok: false, sentence(error))
                for vm in users { failures[vm.name] = error }
            }
        }
        return (digests, failures)
    }

    /// The image that each of these VMs is to have, built if it has to be: from its recipe, and with
    /// `refresh` from the newest packages.
    package func newImages(
        for vms: [VM], in fleet: Fleet?, refresh: Bool
    ) async -> [String: Result<String, any Error>] {
        var results: [String: Result<String, any Error>] = [:]
        let users = Dictionary(grouping: vms, by: Engine.imageName)
        do {
            // All at once: a layer that several images stand on is refreshed once.
            let names = users.keys.sorted().filter { refresh && !isFixed($0, in: fleet) }
            _ = try await buildImages(names, in: fleet, refresh: true)
        } catch {
            for vm in vms { results[vm.name] = .failure(error) }
            return results
        }
        for (image, users) in users.sorted(by: { $0.key < $1.key }) {
            if refresh, isFixed(image, in: fleet) {
                reporter.warning("the image \(image) was imported: there is nothing to refresh")
            }
            let result: Result<String, any Error>
            do {
                result = .success(try await ensureImage(named: image, in: fleet))
            } catch {
                result = .failure(error)
            }
            for vm in users { results[vm.name] = result }
        }
        return results
    }

    /// Whether an image has come from a file, and no recipe of it is used here.
    func isFixed(_ name: String, in fleet: Fleet?) -> Bool {
        ((try? imported(name, in: fleet)) ?? nil) != nil
    }

    /// Whether a rollback holds the VM on the image that it has: then no other one is needed.
    private func isPinned(_ name: String) -> Bool {
        guard let pinned = (try? store.imageMemory(name))?.pinned else { return false }
        return pinned == (try? store.current(name))??.imageDigest
    }

    /// The image that a mutable VM keeps; nil for all that follow their declaration.
    func keptImage(of vm: VM) -> String? {
        let applied = (try? store.current(vm.name)).flatMap { $0 }
        return Planning.keptImage(of: vm, applied: applied.map(ObservedVM.Generation.init))
    }

    /// Which VMs use an image now, will at their next start, or can go back to it, by digest.
    ///
    /// Kept generations and snapshots need theirs: what they go back to must start.
    package func imageUsers() async throws -> [String: [String]] {
        var users: [String: [String]] = [:]
        for report in try await observer.observeAll().reports {
            let name = report.vm.name
            let digests =
                [report.vm.applied, report.vm.running].compactMap { $0?.imageDigest }
                + (try store.generations(name).compactMap { try generationDigest(name, $0) })
                + (try snapshots(name).map(\.generation.imageDigest))
            for digest in Set(digests) { users[digest, default: []].append(report.vm.name) }
        }
        return users
    }

    /// The image of a kept generation; one that cannot be read is nobody's to go back to.
    private func generationDigest(_ name: String, _ number: Int) throws(StoreError) -> String? {
        do {
            return try store.generation(name, number)?.imageDigest
        } catch {
            if case .unreadable = error { return nil }
            throw error
        }
    }
}
