// SPDX-License-Identifier: Apache-2.0

extension Validator {
    func checkSources(_ recipe: ImageRecipe, _ base: String, _ at: [Step]) {
        for (index, source) in recipe.sources.enumerated() {
            checkSource(source, base, at + ["sources", .index(index)])
        }
    }

    private func checkSource(_ source: ImageSource, _ base: String, _ at: [Step]) {
        for (kind, place) in [
            ("archive", source.archive), ("binary", source.binary), ("deb", source.deb),
        ] {
            guard let place else { continue }
            if let url = place.url {
                checkPin(url, source.sha256 ?? "", base, at + [.key(kind)], at + ["sha256"])
            }
            for (name, pin) in [("amd64", place.pins.amd64), ("arm64", place.pins.arm64)] {
                guard let pin else { continue }
                let inner = at + [.key(kind), .key(name)]
                checkPin(pin.url.text, pin.sha256, base, inner + ["url"], inner + ["sha256"])
            }
        }
        let system = ["/proc", "/sys", "/dev", "/run", "/tmp"]
        for (key, path) in [("to", source.to), ("venv", source.venv)] {
            guard let path else { continue }
            if path == "/", key == "venv" || source.binary != nil {
                places.fail(base, at + [.key(key)], "expected a path below '/'")
            } else if let problem = unusable(path, below: system) {
                places.fail(base, at + [.key(key)], problem)
            }
        }
        if source.strip < 0 || source.strip > 64 {
            places.fail(base, at + ["strip"], "'strip' is a number from 0 to 64")
        }
        for (index, path) in source.remove.enumerated() {
            let isPlain = path.pieces("/").allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." }
            if !isPlain || path.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F }) {
                places.fail(
                    base, at + ["remove", .index(index)],
                    "expected a path inside the archive, without '..' and a '/' around it")
            }
        }
        if source.pip?.isEmpty == true {
            places.fail(base, at + ["pip"], "expected requirements, found none")
        }
        for (index, requirement) in (source.pip ?? []).enumerated() {
            if let problem = ImageSource.problem(ofRequirement: requirement) {
                places.fail(base, at + ["pip", .index(index)], problem)
            }
        }
    }

    private func checkPin(
        _ url: String, _ digest: String, _ base: String, _ urlAt: [Step], _ digestAt: [Step]
    ) {
        if let problem = SourceAddress.problem(url) { places.fail(base, urlAt, problem) }
        if !ImageSource.isSHA256(digest) {
            places.fail(
                base, digestAt, "expected a SHA-256: 64 hexadecimal digits, and not only zeros")
        }
    }
}
