// SPDX-License-Identifier: Apache-2.0

extension Dice {
    mutating func roll(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &self) }
}

/// What a round does.
enum FaultStep: String, CaseIterable {
    case write, flushedWrite, discard, up, change, grow, resize, upgrade, rollback, stop, kill
    case restart
    case snapshot, restore, remove, backup, restoreBackup, prune, suspend
}

/// What happens while it does.
struct Fault: CustomStringConvertible {
    enum Kind: Equatable {
        case none, martlet, supervisor, hypervisor, power
        /// One that serves a share.
        case daemon
        /// Only so many bytes are free.
        case full(Int64)
    }

    enum Moment: Equatable {
        /// Before the n-th system call of `martlet` that changes something.
        case call(Int)
        case milliseconds(Int)
    }

    let kind: Kind
    let moment: Moment

    /// `inGuest`: there is no `martlet` whose calls could be counted.
    init(_ dice: inout Dice, inGuest: Bool) {
        let milliseconds = dice.roll(0...dice.roll(20...400))
        // Few verbs make more than a hundred.
        let call = dice.roll(1...dice.roll(3...[60, 60, 60, 240][dice.roll(0...3)]))
        let isCounted = dice.roll(0...3) > 0
        moment = isCounted && !inGuest ? .call(call) : .milliseconds(milliseconds)
        kind =
            switch dice.roll(0...10) {
            case 0: .none
            case 1, 2, 3: .martlet
            case 4: .supervisor
            case 5: .hypervisor
            case 6, 7, 8: .power
            case 9: .daemon
            default: .full(Int64(dice.roll(0...2 << 20)))
            }
    }

    var description: String {
        let what =
            switch kind {
            case .none: "without a fault"
            case .power: "power cut"
            case .full(let bytes): "disk full but for \(bytes) bytes"
            default: "\(kind) killed"
            }
        return switch moment {
        case _ where isNone: what
        case .call(let number): "\(what) at call \(number)"
        case .milliseconds(let number): "\(what) after \(number) ms"
        }
    }

    /// A guest that is shut down meanwhile has the time to write out all that it has.
    var isGentle: Bool { ![.supervisor, .hypervisor, .daemon].contains(kind) }
    var isPower: Bool { kind == .power }
    var isNone: Bool { kind == .none }
    /// The call at which it happens.
    var call: Int? { if case .call(let number) = moment, !isNone { number } else { nil } }
}

/// What slots of a disk may hold: what a guest was promised, and what it was not.
struct SlotModel {
    static let slots = 8

    /// What each slot of a disk, a snapshot or a backup may hold.
    typealias Content = [Set<UInt8>]

    /// What the guest reads there.
    private var current = [UInt8](repeating: 0, count: slots)
    /// What each may be after a power cut: what was flushed last, and all that came after.
    private(set) var possible = Content(repeating: [0], count: slots)
    /// What the whole may be instead, while something puts it there.
    private var others: [Content] = []

    /// What the guest reads there now.
    var exact: Content { current.map { [$0] } }

    /// It was asked for, and may be there or not.
    mutating func writing(_ value: UInt8, to slot: Int) { possible[slot].insert(value) }

    mutating func wrote(_ value: UInt8, to slot: Int) {
        current[slot] = value
        possible[slot].insert(value)
    }

    /// All that was written until now lasts.
    mutating func flushed() { possible = exact }

    /// Something is putting this in its place, all of it or nothing.
    mutating func replacing(by content: Content) { others.append(content) }

    /// Something put this in its place.
    mutating func replaced(by content: Content) {
        possible = content
        others = []
    }

    /// Takes in what is there; false when it is not what it may be.
    ///
    /// It may still be in memory alone, unless that is lost (`isLasting`).
    mutating func found(_ values: [UInt8?], isLasting: Bool) -> Bool {
        let known = values.compactMap { $0 }
        guard known.count == Self.slots else { return false }
        func isOf(_ content: Content) -> Bool {
            zip(known, content).allSatisfy { $1.contains($0) }
        }
        let isRestored = others.contains(where: isOf)
        guard isRestored || isOf(possible) else { return false }
        others = []
        current = known
        if isRestored || isLasting { flushed() }
        return true
    }

    var text: String { "\(possible.map { $0.sorted() }) or \(others)" }
}
