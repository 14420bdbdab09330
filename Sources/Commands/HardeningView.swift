// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets

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

extension HardeningRow {
    /// The word under HOLDS.
    var holds: String {
        switch state {
        case .holds: "yes"
        case .differs: "no"
        case .lacks, .overruled, .excepted: "-"
        }
    }

    /// What was found, and what there is to say of it.
    var words: String {
        let value = found ?? "nothing"
        let wanted = state == .differs ? ", not \(wanted)" : ""
        return value + wanted + (state.detail.map { ": \($0)" } ?? "")
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
