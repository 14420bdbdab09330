// SPDX-License-Identifier: Apache-2.0
import Fleets
import Images
import Planning
import Supervisor

extension Engine {
    /// Refuses to start from files that are not what was built.
    ///
    /// Layers with a hash tree are checked by the guest as it reads them. Here they are read when one
    /// of them has just ended a guest, to say which it is; and those of before there was such a tree.
    func checkImage(_ image: ImageManifest, of name: String) async throws {
        let damage = try await images.damage(
            of: image, withLayers: await needsLayersChecked(image, of: name))
        guard !damage.isEmpty else { return }
        throw LifecycleError.damagedImage(
            vm: name, image: image.name,
            what: damage.map(\.description).joined(separator: "; "))
    }

    private func needsLayersChecked(_ image: ImageManifest, of name: String) async -> Bool {
        if !image.isCheckedAtRead { return true }
        return await observer.observe(name).observation.exit?.ending == .imageDamaged
    }

    /// Builds anew what is damaged of the images that VMs which do not run would start from, and
    /// returns why that failed, by VM.
    ///
    /// What is damaged stays until there is something in its place, and then goes to `quarantine/`:
    /// guests that run from it, and do not read what is damaged, need not be stopped.
    func mendImages(for vms: [VM], in fleet: Fleet) async -> [String: any Error] {
        var known: [String: [ImageDamage]] = [:]
        var damaged: [String: [String]] = [:]
        for vm in vms where await !observer.observe(vm.name).vm.phase.isLive {
            guard let digest = (try? store.current(vm.name))??.imageDigest,
                let image = (try? images.resolve(digest)) ?? nil
            else { continue }
            let layers = await needsLayersChecked(image, of: vm.name)
            let key = "\(digest) \(layers)"
            if known[key] == nil {
                let found = (try? await images.damage(of: image, withLayers: layers)) ?? []
                for part in found { reporter.warning("\(part)") }
                known[key] = found
            }
            if known[key] != [] { damaged[Engine.imageName(of: vm), default: []].append(vm.name) }
        }
        var failures: [String: any Error] = [:]
        // One that came from a file is made by nobody here: its start says so.
        for (image, users) in damaged.sorted(by: { $0.key < $1.key })
        where !isFixed(image, in: fleet) {
            do {
                _ = try await buildImages([image], in: fleet, verify: true)
            } catch {
                reporter.finished(image, ok: false, sentence(error))
                for name in users { failures[name] = error }
            }
        }
        return failures
    }
}
