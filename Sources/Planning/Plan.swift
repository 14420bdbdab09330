// SPDX-License-Identifier: Apache-2.0

/// What a change costs, from nothing to the loss of data.
package enum Consequence: String, Sendable, Codable, Comparable, CaseIterable {
    /// Nothing stops.
    case live
    /// The guest restarts.
    case restart
    /// The guest restarts on another image; its data stays.
    case rebuild
    /// Fresh disks; only the identity stays.
    case recreate
    /// Data is lost that nothing else holds.
    case dataLoss = "data-loss"

    package static func < (a: Consequence, b: Consequence) -> Bool { a.rank < b.rank }
    private var rank: Int { Consequence.allCases.firstIndex(of: self) ?? 0 }
}

/// What `up` does to one VM.
package enum Action: String, Sendable, Codable, CaseIterable {
    /// Identity, disks and first generation.
    case create
    case start
    /// A new generation that the running VM takes over as it runs, or that the next start uses.
    case update
    case restart
    /// An upgrade: a restart on another image, which is taken back when that does not come up.
    case rebuild
    case stop
    /// Nothing, because what is declared cannot be done: the reason says why and what to do.
    case refuse
}

/// One line of a plan: an action on a VM and one reason for it.
package struct Change: Sendable, Equatable {
    package let vm: String
    package let action: Action
    package let consequence: Consequence
    /// The dotted path in the fleet file, where one key is the reason.
    package let field: String?
    package let from: String?
    package let to: String?
    package let reason: String

    package init(
        vm: String, action: Action, consequence: Consequence, field: String? = nil,
        from: String? = nil, to: String? = nil, reason: String
    ) {
        self.vm = vm
        self.action = action
        self.consequence = consequence
        self.field = field
        self.from = from
        self.to = to
        self.reason = reason
    }
}

/// What would change, in the order in which it is carried out.
package struct Plan: Sendable, Equatable {
    /// What happens to one VM, and why.
    package struct Step: Sendable, Equatable {
        package let vm: String
        /// In order: for example update, then restart.
        package let actions: [Action]
        package let changes: [Change]

        package var refusal: Change? { changes.first { $0.action == .refuse } }
    }

    /// Something that is as it is on purpose, and that a person may wonder about.
    package struct Note: Sendable, Equatable {
        package let vm: String
        package let text: String
    }

    /// Images that must be built first, by name.
    package let builds: [String]
    package let steps: [Step]
    /// What is not done, and why: nothing that is pending.
    package var notes: [Note] = []

    package var changes: [Change] { steps.flatMap(\.changes) }
    package var isEmpty: Bool { builds.isEmpty && steps.isEmpty }

    /// How many VMs each action concerns.
    package var summary: [(action: Action, count: Int)] {
        Action.allCases.map { action in
            (action, steps.filter { step in step.changes.contains { $0.action == action } }.count)
        }
    }
}
