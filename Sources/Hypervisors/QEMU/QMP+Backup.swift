// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// What QMP does so that a running guest's disks can be read as they were at one moment.
///
/// A filter goes between device and disk: what the guest is about to overwrite is first copied into
/// a store. Filter and store together are the disk of that moment, which QEMU serves over NBD.
/// When a copy fails (a full host), the picture is broken and not the guest's write.
package enum BackupNodes {
    // A node's name has at most 31 bytes, a disk's serial number at most 20.
    package static func store(_ disk: String) -> String { "old-\(disk)" }
    package static func filter(_ disk: String) -> String { "cow-\(disk)" }
    package static func picture(_ disk: String) -> String { "then-\(disk)" }
}

extension QMP {
    /// A change of dirty bitmaps; `node` is as in the command line (`disk-data`).
    package enum BitmapAction: Sendable, Equatable {
        case add(node: String, name: String)
        case remove(node: String, name: String)
        case enable(node: String, name: String)
        case disable(node: String, name: String)
        case merge(node: String, others: [String], into: String)

        var json: JSONValue {
            func action(_ verb: String, _ node: String, _ more: [JSONValue.Member]) -> JSONValue {
                [
                    "type": .string("block-dirty-bitmap-\(verb)"),
                    "data": .object([.init("node", .string(node))] + more),
                ]
            }
            return switch self {
            case .add(let node, let name):
                action(
                    "add", node,
                    [.init("name", .string(name)), .init("persistent", .bool(true))])
            case .remove(let node, let name):
                action("remove", node, [.init("name", .string(name))])
            case .enable(let node, let name):
                action("enable", node, [.init("name", .string(name))])
            case .disable(let node, let name):
                action("disable", node, [.init("name", .string(name))])
            case .merge(let node, let others, let target):
                action(
                    "merge", node,
                    [
                        .init("target", .string(target)),
                        .init("bitmaps", .array(others.map { .string($0) })),
                    ])
            }
        }
    }

    /// A block node: its size, and the dirty bitmaps that it has under names.
    package struct Node: Sendable, Equatable {
        package struct Bitmap: Sendable, Equatable {
            package let name: String
            package let isRecording: Bool
            package let isInconsistent: Bool
        }

        package let name: String
        package let bytes: Int64
        package let bitmaps: [Bitmap]

        /// Reads the reply to `query-named-block-nodes`.
        package static func read(_ reply: JSONValue) -> [Node] {
            reply.elements.compactMap { node in
                guard let name = node["node-name"]?.string else { return nil }
                let bitmaps = (node["dirty-bitmaps"]?.elements ?? []).compactMap {
                    bitmap -> Bitmap? in
                    // Those of filters and jobs have no name.
                    guard let name = bitmap["name"]?.string, !name.isEmpty else { return nil }
                    return Bitmap(
                        name: name, isRecording: bitmap["recording"]?.bool ?? false,
                        isInconsistent: bitmap["inconsistent"]?.bool ?? false)
                }
                return Node(
                    name: name, bytes: node["image"]?["virtual-size"]?.integer ?? 0,
                    bitmaps: bitmaps)
            }
        }
    }
}

extension QMP.Command {
    /// Changes of bitmaps that happen at one moment, or not at all.
    package static func bitmaps(_ actions: [QMP.BitmapAction]) -> QMP.Command {
        QMP.Command("transaction", ["actions": .array(actions.map(\.json))])
    }

    package static let blockNodes = QMP.Command("query-named-block-nodes", ["flat": true])

    /// Opens the file that takes what the guest overwrites; it must be as long as the disk.
    package static func openStore(of disk: String, path: String) -> QMP.Command {
        QMP.Command(
            "blockdev-add",
            [
                "driver": "raw", "node-name": .string(BackupNodes.store(disk)),
                "file": ["driver": "file", "filename": .string(path)],
            ])
    }

    package static func openFilter(of disk: String, node: String) -> QMP.Command {
        QMP.Command(
            "blockdev-add",
            [
                "driver": "copy-before-write", "node-name": .string(BackupNodes.filter(disk)),
                "file": .string(node), "target": .string(BackupNodes.store(disk)),
                "on-cbw-error": "break-snapshot",
                // Else what the guest gives back meanwhile would stay allocated.
                "discard": "unmap",
            ])
    }

    package static func openPicture(of disk: String) -> QMP.Command {
        QMP.Command(
            "blockdev-add",
            [
                "driver": "snapshot-access", "node-name": .string(BackupNodes.picture(disk)),
                "file": .string(BackupNodes.filter(disk)),
            ])
    }

    /// Makes the guest's device use another node; what was under way is finished before.
    package static func setDrive(of disk: String, to node: String) -> QMP.Command {
        QMP.Command(
            "qom-set",
            [
                "path": .string("/machine/peripheral/disk-\(disk)-dev"), "property": "drive",
                "value": .string(node),
            ])
    }

    /// The node that the guest's device uses; the reply is its name.
    package static func drive(of disk: String) -> QMP.Command {
        QMP.Command(
            "qom-get",
            [
                "path": .string("/machine/peripheral/disk-\(disk)-dev"), "property": "drive",
            ])
    }

    package static func closeNode(_ node: String) -> QMP.Command {
        QMP.Command("blockdev-del", ["node-name": .string(node)])
    }

    /// Listens on a unix socket; QEMU has one such server.
    package static func startNBD(socket: String) -> QMP.Command {
        QMP.Command(
            "nbd-server-start", ["addr": ["type": "unix", "data": ["path": .string(socket)]]])
    }
    package static let stopNBD = QMP.Command("nbd-server-stop")

    /// Serves a node read-only, with a bitmap of the disk `bitmap.node` that says what changed.
    package static func export(
        _ export: String, node: String, bitmap: (node: String, name: String)? = nil
    ) -> QMP.Command {
        var members: [JSONValue.Member] = [
            .init("type", "nbd"), .init("id", .string(export)),
            .init("node-name", .string(node)), .init("name", .string(export)),
            .init("writable", .bool(false)),
        ]
        if let bitmap {
            let named: JSONValue = ["node": .string(bitmap.node), "name": .string(bitmap.name)]
            members.append(.init("bitmaps", .array([named])))
        }
        return QMP.Command("block-export-add", .object(members))
    }
    package static func endExport(_ id: String) -> QMP.Command {
        QMP.Command("block-export-del", ["id": .string(id), "mode": "hard"])
    }
    package static let exports = QMP.Command("query-block-exports")
}
