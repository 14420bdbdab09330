// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// A VM of another tool as an entry of a fleet file, and what did not fit into it.
package struct Imported: Sendable, Equatable {
    /// The name of the VM, valid in a fleet file.
    package let name: String
    /// What it was made from, in a few words: `the libvirt domain 'web'`.
    package let origin: String
    /// The entry below `vms.NAME`, in the order in which a person would write it.
    package let entry: JSONValue
    /// The networks and secrets that the entry names.
    package let networks: [JSONValue.Member]
    package let secrets: [JSONValue.Member]
    /// What could not be carried over, or has to be looked at.
    package var notes: [ImportNote]
    /// Data that lies on the other tool's disks, and how to move it.
    package let data: [DataMove]

    /// A whole fleet file of this one VM.
    var document: JSONValue {
        var members: [JSONValue.Member] = []
        if !networks.isEmpty { members.append(.init("networks", .object(networks))) }
        if !secrets.isEmpty { members.append(.init("secrets", .object(secrets))) }
        members.append(.init("vms", .object([.init(name, entry)])))
        return .object(members)
    }

    /// The fleet file as text, with notes and moves of data as comments at its top.
    package var yaml: String {
        var comments = ["\(name): imported from \(origin)."]
        if !notes.isEmpty {
            comments += ["", "Not carried over, or to be looked at:"]
            comments += notes.map { "- \($0.text)" }
        }
        if !data.isEmpty {
            comments += ["", "The data, once `martlet up` has made the VM:"]
            comments += data.map { "- \($0.text)" }
        }
        return comments.map(yamlComment).joined() + "\n" + yamlText(document)
    }

    /// What `--json` prints.
    package var json: JSONValue {
        [
            "name": .string(name), "entry": entry, "networks": .object(networks),
            "secrets": .object(secrets), "yaml": .string(yaml),
            "notes": .array(notes.map(\.json)), "data": .array(data.map(\.json)),
        ]
    }

    /// What the reader of fleet files makes of it.
    package func read() -> FleetFile { FleetFile.parse(yamlText(document)) }
}

/// One thing that the fleet file does not have as it was.
package struct ImportNote: Sendable, Equatable {
    /// What it is: `the sound card ich9`.
    package let what: String
    /// Why it was not carried over as it was.
    package let why: String
    /// What to do instead; nil when there is nothing to do.
    package let instead: String?

    package init(_ what: String, _ why: String, _ instead: String? = nil) {
        self.what = what
        self.why = why
        self.instead = instead
    }

    /// All of it on one line.
    package var text: String { "\(what): \(why)" + (instead.map { "; \($0)" } ?? "") }

    var json: JSONValue {
        [
            "what": .string(what), "why": .string(why),
            "instead": instead.map { .string($0) } ?? .null,
        ]
    }
}

/// Data to copy by hand: nothing of the other tool is touched by an import.
package struct DataMove: Sendable, Equatable {
    /// The disk, file or folder on this host.
    package let from: String
    /// The folder of the guest.
    package let to: String
    /// What to type, or what to do.
    package let how: String

    var text: String { "\(from) to \(to): \(how)" }
    var json: JSONValue { ["from": .string(from), "to": .string(to), "how": .string(how)] }
}
