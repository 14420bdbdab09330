// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Planning

/// What was read back of a guest's hardening.
enum HardeningVerb {
    /// For tests: every row, as JSON.
    static let command = Command(
        "__hardening", "Read back the kernel settings of a running guest.",
        parameters: [Options.vm], isHidden: true
    ) { arguments in
        let session = try Session(arguments)
        let name = try await session.target(arguments[Options.vm]).vm.name
        session.printer.document(try await session.engine.guestHardening(of: name).json)
    }
}

extension GuestHardening {
    var json: JSONValue {
        .object([
            .init("level", .string(level.rawValue)), .init("kernel", .string(kernel)),
            .init("holds", .bool(holds)), .init("settings", .array(rows.map(\.json))),
        ])
    }
}

extension HardeningRow {
    var json: JSONValue {
        .object([
            .init("setting", .string(setting)), .init("wanted", .string(wanted)),
            .init("found", found.map(JSONValue.string) ?? .null),
            .init("state", .string(state.word)),
            .init("detail", state.detail.map(JSONValue.string) ?? .null),
        ])
    }
}

extension HardeningRow.State {
    /// The state in one word.
    var word: String {
        switch self {
        case .holds: "holds"
        case .differs: "differs"
        case .lacks: "lacks"
        case .overruled: "overruled"
        case .excepted: "excepted"
        }
    }

    /// What people want to know beyond the word.
    var detail: String? {
        switch self {
        case .lacks(let need): "the guest's kernel does not have it: it needs \(need)"
        case .overruled(let who): "\(who) says otherwise"
        case .excepted: "left as it is by hardening.exceptions"
        case .holds, .differs: nil
        }
    }
}
