// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// What cannot be done to a VM's disks, for data would be lost or be out of reach; pure.
func diskRefusals(of vm: VM, from old: VM) -> [Change] {
    func refuse(
        _ field: String, _ from: String, _ to: String, _ reason: String,
        _ consequence: Consequence = .dataLoss
    ) -> Change {
        Change(
            vm: vm.name, action: .refuse, consequence: consequence, field: field, from: from,
            to: to, reason: reason)
    }
    var refusals: [Change] = []
    if vm.disk < old.disk {
        refusals.append(
            refuse(
                "disk", "\(old.disk)", "\(vm.disk)",
                "a data volume cannot shrink: leave the size, "
                    + "or 'martlet recreate \(vm.name)' for an empty one"))
    }
    for volume in vm.volumes {
        guard let before = old.volumes.first(where: { $0.name == volume.name }) else { continue }
        let field = "volumes[\(volume.name)]"
        let instead = "declare another volume for it and copy what is in this one"
        if volume.device != before.device, volume.device == nil || before.device == nil {
            let words = { (one: Volume) in one.device ?? "a file" }
            refusals.append(
                refuse(
                    field + ".device", words(before), words(volume),
                    "the data would stay where it is: \(instead)"))
            continue
        }
        if volume.filesystem != before.filesystem {
            refusals.append(
                refuse(
                    field + ".filesystem", before.filesystem.rawValue, volume.filesystem.rawValue,
                    "the volume is never formatted again: \(instead)"))
        }
        if volume.format != before.format {
            refusals.append(
                refuse(
                    field + ".format", before.format.rawValue, volume.format.rawValue,
                    "a volume keeps the format that it was made with: \(instead)"))
        }
        guard let size = volume.size, let had = before.size, size != had else { continue }
        if size < had {
            refusals.append(
                refuse(
                    field + ".size", "\(had)", "\(size)",
                    "a volume cannot shrink: leave the size, or \(instead)"))
        } else if !volume.filesystem.canGrow {
            refusals.append(
                refuse(
                    field + ".size", "\(had)", "\(size)",
                    "\(volume.filesystem.rawValue) cannot grow: \(instead)", .live))
        } else if volume.readOnly {
            refusals.append(
                refuse(
                    field + ".size", "\(had)", "\(size)",
                    "the guest cannot grow what it may only read: set 'readOnly: false' first",
                    .live))
        }
    }
    return refusals
}

/// Whether a field is the size of a disk: it grows while the guest runs.
func isDiskSize(_ field: String) -> Bool {
    field == "disk" || field.hasPrefix("volumes[") && field.hasSuffix("].size")
}

/// What is to be said of a change to disks or mode beyond what it costs; nil for all others.
func diskExplanation(of change: FieldChange, in vm: VM) -> String? {
    if isDiskSize(change.field) {
        return "the disk and its file system grow while the guest runs"
    }
    if change.field == "mode" {
        return switch vm.mode {
        case .immutable:
            "from the restart on the system is the image alone; what was written to it stays on "
                + "the data volume, unused"
        case .overlay:
            "from the restart on the system can be written to, until the image changes"
        case .mutable: "from the restart on the system can be written to, and keeps its image"
        }
    }
    if change.field.hasPrefix("volumes["), change.to == nil {
        return "from the restart on the guest is without it; nothing in it is deleted"
    }
    return nil
}

/// The image that a VM keeps whatever its declaration names; nil when it follows it.
///
/// Of a mutable VM the package database and all that was installed belong to one image, and would
/// hide the files of another one. That counts from the moment when it may have been written to.
package func keptImage(of vm: VM, applied: ObservedVM.Generation?) -> String? {
    guard vm.mode == .mutable, let applied, applied.vm.mode != .immutable else { return nil }
    return applied.imageDigest
}
