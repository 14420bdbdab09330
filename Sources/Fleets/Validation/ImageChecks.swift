// SPDX-License-Identifier: Apache-2.0

extension Validator {
    func checkImage(_ image: ImageRecipe) {
        let base = "images." + image.name
        if !isName(image.name) { places.fail(base, [], nameRule(image.name)) }
        if ImageRecipe.builtIn.contains(image.name) {
            places.fail(
                base, [],
                "'\(image.name)' is a built-in image; choose another name and build on it "
                    + "with 'from: \(image.name)'")
        }
        checkRecipe(image, base, [])
    }

    func checkRecipe(_ recipe: ImageRecipe, _ base: String, _ at: [Step]) {
        if let from = recipe.from, !ImageRecipe.builtIn.contains(from), !isKnown("images", from) {
            places.fail(
                base, at + ["from"],
                "no image '\(from)'" + nearest(from, in: images.keys + ImageRecipe.builtIn))
        }
        if let from = recipe.from, images[from]?.disk != nil {
            places.fail(
                base, at + ["from"], "'\(from)' is a foreign disk, which nothing can be built on")
        }
        for (index, package) in recipe.packages.enumerated() where !isPackage(package) {
            places.fail(
                base, at + ["packages", .index(index)],
                "'\(package)' is no name of a Debian package: a-z, 0-9, '+', '-', '.'")
        }
        checkSources(recipe, base, at)
        for path in recipe.files.keys.sorted() {
            if let problem = unusable(path, below: ["/proc", "/sys", "/dev", "/run", "/tmp"]) {
                places.fail(base, at + ["files", .key(path)], problem)
            }
        }
        for (index, command) in recipe.run.enumerated() where command.allSatisfy(\.isWhitespace) {
            places.fail(base, at + ["run", .index(index)], "expected a command, found nothing")
        }
        checkOCI(recipe, base, at)
    }

    private func checkOCI(_ recipe: ImageRecipe, _ base: String, _ at: [Step]) {
        guard let oci = recipe.oci else { return }
        let parts = oci.pieces("@")
        let name = parts[0]
        if name.isEmpty || !name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) || parts.count > 2 {
            places.fail(
                base, at + ["oci"],
                "expected a reference such as docker.io/library/nginx@sha256:…, found '\(oci)'")
        } else if parts.count == 1 {
            places.fail(
                base, at + ["oci"],
                "has no digest, so what it stands for changes without notice; add '@sha256:…'")
        } else if !parts[1].hasPrefix("sha256:")
            || !isHexPattern(String(parts[1].dropFirst(7)), String(repeating: "x", count: 64))
        {
            places.fail(base, at + ["oci"], "the digest is 'sha256:' and 64 hexadecimal digits")
        }
    }

    private func isPackage(_ text: String) -> Bool {
        let name = text.split(separator: "=", maxSplits: 1).first ?? ""
        return name.utf8.count >= 2 && name.first.map { $0.isLowercase || $0.isNumber } == true
            && name.utf8.allSatisfy {
                isLetterOrDigit($0) && !(0x41...0x5A).contains($0) || "+-.:".utf8.contains($0)
            } && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F }
    }

    func checkImageCycles() {
        let own = images.filter { !ImageRecipe.builtIn.contains($0.key) }
        let edges = own.mapValues { recipe in recipe.from.map { [$0] } ?? [] }
        for cycle in cycles(in: fleet.images.map(\.name), edges) {
            places.fail(
                "images." + cycle[0], ["from"],
                "builds on itself: \((cycle + [cycle[0]]).joined(separator: " → "))")
        }
    }

    func checkOrder() {
        for vm in fleet.vms {
            for (index, name) in vm.after.enumerated() {
                let at: [Step] = ["after", .index(index)]
                if name == vm.name {
                    fail(vm, at, "a VM cannot start after itself")
                } else if !isKnown("vms", name) {
                    fail(vm, at, "no VM '\(name)'" + nearest(name, in: vms.keys))
                } else if vm.enable, vms[name].map({ fleet.vms[$0].enable }) == false {
                    fail(
                        vm, at,
                        "'\(name)' has 'enable: false' and is never healthy, so this VM would "
                            + "never start")
                }
            }
        }
        let edges = vms.mapValues { index in
            let vm = fleet.vms[index]
            return vm.after.filter { $0 != vm.name }
        }
        for cycle in cycles(in: fleet.vms.map(\.name), edges) {
            places.fail(
                "vms." + cycle[0], ["after"],
                "waits for itself: \((cycle + [cycle[0]]).joined(separator: " → "))")
        }
    }
}

/// Each cycle once, from the member that is reached first; iterative, so depth is no danger.
private func cycles(in order: [String], _ edges: [String: [String]]) -> [[String]] {
    var done: Set<String> = []
    var found: [[String]] = []
    for start in order where !done.contains(start) {
        var path = [start]
        var positions = [start: 0]
        var pending = [edges[start, default: []][...]]
        while let top = pending.indices.last {
            guard let next = pending[top].popFirst() else {
                pending.removeLast()
                let last = path.removeLast()
                positions[last] = nil
                done.insert(last)
                continue
            }
            if let position = positions[next] {
                found.append(Array(path[position...]))
            } else if !done.contains(next) {
                positions[next] = path.count
                path.append(next)
                pending.append(edges[next, default: []][...])
            }
        }
    }
    return found
}
