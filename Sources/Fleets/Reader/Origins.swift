// SPDX-License-Identifier: Apache-2.0

/// One effective key of a VM, its value, and where the value comes from.
package struct EffectiveKey: Sendable, Equatable {
    /// The dotted path below the VM, such as `ssh.user`.
    package let path: String
    /// As written in a fleet file; secrets are not shown.
    package let value: String
    /// `default`, `fleet.yaml:12`, or `fleet.yaml:4 (profile big)`.
    package let origin: String
}

extension FleetFile {
    /// Every key of a VM with its value and origin; nil when there is no such VM.
    package func effective(_ name: String) -> [EffectiveKey]? {
        guard let vm = fleet?.vm(name), let layers = layers[name] else { return nil }
        var keys: [EffectiveKey] = []
        flatten([], vm.json, layers, into: &keys)
        return keys
    }

    private func flatten(
        _ path: [String], _ value: JSONValue, _ layers: [Layer], into keys: inout [EffectiveKey]
    ) {
        if case .object(let members) = value, !members.isEmpty {
            for member in members {
                flatten(path + [member.key], member.value, layers, into: &keys)
            }
            return
        }
        let shown = path == ["rootPasswordHash"] ? "(hidden)" : value.flow
        keys.append(
            EffectiveKey(
                path: path.joined(separator: "."), value: shown, origin: origin(path, layers)))
    }

    private func origin(_ path: [String], _ layers: [Layer]) -> String {
        for layer in layers.reversed() {
            guard let node = layer.node.find(path) else {
                // A later layer that replaces a parent hides what earlier ones say.
                if let top = layer.node[path[0]], path.count > 1, replaces(top, path) {
                    return "default"
                }
                continue
            }
            if node.isNull { return "default" }
            let file = files.indices.contains(Int(node.mark.file)) ? files[Int(node.mark.file)] : ""
            let place = "\(file):\(node.mark.line)"
            return layer.label.isEmpty ? place : "\(place) (\(layer.label))"
        }
        return "default"
    }

    private func replaces(_ top: Node, _ path: [String]) -> Bool {
        if valueKeys.contains(path[0]) { return true }
        if case .mapping = top.content { return false }
        return true
    }
}
