// SPDX-License-Identifier: Apache-2.0

/// One key of the fleet file's top level: how it is gathered over imports, and what it holds.
struct Section: Sendable {
    enum Kind: Sendable {
        /// Named entries; a name defined twice is an error.
        case named
        /// A list; imports are put together.
        case list
        /// One value; it can stand in one file only.
        case value
        /// Other files.
        case imports
    }

    let name: String
    let kind: Kind
    let help: String
    /// The schema of the value, of one item, or of one entry.
    let schema: @Sendable () -> JSONValue

    static let all: [Section] = [
        Section("fleet", .value, "The fleet's name; that of the file's folder unless given.") {
            String.schema
        },
        Section("imports", .imports, "More fleet files, relative to this one.") { String.schema },
        Section("images", .named, "Images by name.") { ImageRecipe.schema },
        Section("networks", .named, "Networks by name.") { counted(Network.schema) },
        Section("allow", .list, "Openings between VMs; everything else is closed.") {
            Opening.schema
        },
        Section("trusted", .list, "Host interfaces that may reach every VM.") { String.schema },
        Section("publishing", .value, "How published VMs are reached.") { Publishing.schema },
        Section("advertise", .value, "Where NAT subnets are announced.") { Advertisement.schema },
        Section("secrets", .named, "Where secrets come from, by name.") { Secret.schema },
        Section("profiles", .named, "Partial VMs that VMs can list.") { reference },
        Section("defaults", .value, "A partial VM that every VM starts from.") { reference },
        Section("vms", .named, "The VMs by name.") { reference },
        Section("hosts", .named, "Further machines by name.") { Host.schema },
    ]

    private static let reference: JSONValue = ["$ref": "#/$defs/vm"]

    private init(
        _ name: String, _ kind: Kind, _ help: String, _ schema: @escaping @Sendable () -> JSONValue
    ) {
        self.name = name
        self.kind = kind
        self.help = help
        self.schema = schema
    }
}

extension FleetFile {
    /// The JSON Schema (draft 2020-12) of the fleet file, made from what the reader reads.
    package static var schema: JSONValue {
        let sections = Section.all.map { section in
            JSONValue.Member(section.name, section.whole.nullable.described(section.help))
        }
        return [
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Martlet fleet file", "type": "object", "additionalProperties": false,
            "properties": .object(sections), "$defs": ["vm": vmSchema],
        ]
    }

    /// An entry of `vms`; the reader is stricter about `defaults` and `profiles`.
    private static var vmSchema: JSONValue {
        let profiles = [String].schema.nullable.described("Partial VMs to start from, by name.")
        return counted(VM.schema).adding("profiles", profiles).nullable
    }
}

extension Section {
    fileprivate var whole: JSONValue {
        switch kind {
        case .value: schema()
        case .list, .imports: ["type": "array", "items": schema()]
        case .named: ["type": "object", "additionalProperties": schema()]
        }
    }
}

/// A record that may stand for several, with `{n}` as the number in its texts.
private func counted(_ schema: JSONValue) -> JSONValue {
    schema.adding(
        "count",
        JSONValue(dictionaryLiteral: ("type", "integer"), ("minimum", 1), ("maximum", 4096))
            .nullable.described("How many to make; {n} in any text is the number."))
}

extension JSONValue {
    /// The schema with `null` allowed: to the reader it means the default.
    var nullable: JSONValue {
        .object(
            members.map { member in
                switch (member.key, member.value) {
                case ("type", .string(let type)):
                    Member("type", .array([.string(type), "null"]))
                case ("type", .array(let types)): Member("type", .array(types + ["null"]))
                case ("enum", .array(let values)): Member("enum", .array(values + [.null]))
                case ("anyOf", .array(let all)):
                    Member("anyOf", .array(all + [["type": "null"]]))
                default: member
                }
            })
    }

    func described(_ help: String) -> JSONValue {
        .object(members + [Member("description", .string(help))])
    }

    fileprivate func adding(_ name: String, _ property: JSONValue) -> JSONValue {
        .object(
            members.map { member in
                guard member.key == "properties" else { return member }
                return Member(member.key, .object(member.value.members + [Member(name, property)]))
            })
    }
}
