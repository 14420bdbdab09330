// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// What QMP does with disks that a guest uses. Disks go by their node names, as `disk-data`.
extension QMP {
    /// One part of a transaction: all parts happen at one moment, or none does.
    package enum BlockAction: Sendable, Equatable {
        /// Keeps the content inside the qcow2 file under a name.
        case snapshot(node: String, tag: String)
        /// Begins to copy the content of this moment to another node.
        case copy(node: String, to: String, job: String)

        var json: JSONValue {
            switch self {
            case .snapshot(let node, let tag):
                [
                    "type": "blockdev-snapshot-internal-sync",
                    "data": ["device": .string(node), "name": .string(tag)],
                ]
            case .copy(let node, let target, let job):
                [
                    "type": "blockdev-backup",
                    "data": [
                        "job-id": .string(job), "device": .string(node),
                        "target": .string(target), "sync": "full",
                        // A job that is over stays to be asked how it ended.
                        "auto-dismiss": false,
                    ],
                ]
            }
        }
    }

    /// A job as `query-jobs` describes it.
    package struct Job: Sendable, Equatable {
        package let id: String
        package let isOver: Bool
        /// Why it failed.
        package let error: String?
        package let done: Int64
        package let total: Int64

        package static func read(_ reply: JSONValue) -> [Job] {
            reply.elements.compactMap { job in
                guard let id = job["id"]?.string else { return nil }
                return Job(
                    id: id, isOver: job["status"]?.string == "concluded",
                    error: job["error"]?.string, done: job["current-progress"]?.integer ?? 0,
                    total: job["total-progress"]?.integer ?? 0)
            }
        }
    }
}

extension QMP.Command {
    package static func transaction(_ actions: [QMP.BlockAction]) -> QMP.Command {
        QMP.Command("transaction", ["actions": .array(actions.map(\.json))])
    }

    /// Drops a snapshot inside a qcow2 file.
    package static func deleteSnapshot(node: String, tag: String) -> QMP.Command {
        QMP.Command(
            "blockdev-snapshot-delete-internal-sync",
            ["device": .string(node), "name": .string(tag)])
    }

    package static let jobs = QMP.Command("query-jobs")
    package static func dismissJob(_ id: String) -> QMP.Command {
        QMP.Command("job-dismiss", ["id": .string(id)])
    }
    /// Asks a job to end; it is over some time later.
    package static func cancelJob(_ id: String) -> QMP.Command {
        QMP.Command("job-cancel", ["id": .string(id)])
    }

    /// Opens a file that is to be copied to.
    package static func openTarget(node: String, path: String, format: String) -> QMP.Command {
        QMP.Command(
            "blockdev-add",
            [
                "driver": .string(format), "node-name": .string(node), "discard": "unmap",
                "detect-zeroes": "unmap",
                "file": ["driver": "file", "filename": .string(path), "discard": "unmap"],
            ])
    }
    package static func closeTarget(node: String) -> QMP.Command {
        QMP.Command("blockdev-del", ["node-name": .string(node)])
    }
    /// Lists all nodes, `flat` as each one's backing chain would take a second walk.
    package static let nodes = QMP.Command("query-named-block-nodes", ["flat": true])
}
