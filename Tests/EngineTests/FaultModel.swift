// SPDX-License-Identifier: Apache-2.0

extension Dice {
    mutating func roll(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &self) }
}

/// What a round does.
enum FaultStep: String, CaseIterable {
    case write, flushedWrite, discard, up, change, grow, upgrade, rollback, stop, kill, restart
    case snapshot, restore, remove, backup, restoreBackup, prune, suspend
}

/// What happens while it does.
enum Fault: CustomStringConvertible {
    case none
    /// `martlet` is killed between its steps, at the n-th.
    case step(Int)
    case martlet(Int)
    case supervisor(Int)
    case hypervisor(Int)
    /// One that serves a share.
    case daemon(Int)
    case power(Int)
    /// So many bytes are free.
    case full(Int64)

    init(_ dice: inout Dice) {
        let milliseconds = dice.roll(0...dice.roll(20...400))
        self =
            switch dice.roll(0...10) {
            case 0: .none
            case 1, 2, 3: .step(dice.roll(1...dice.roll(2...24)))
            case 4: .martlet(milliseconds)
            case 5: .supervisor(milliseconds)
            case 6: .hypervisor(milliseconds)
            case 7, 8: .power(milliseconds)
            case 9: .daemon(milliseconds)
            default: .full(Int64(dice.roll(0...2 << 20)))
            }
    }

    var description: String {
        switch self {
        case .none: "without a fault"
        case .step(let step): "martlet killed at step \(step)"
        case .martlet(let ms): "martlet killed after \(ms) ms"
        case .supervisor(let ms): "supervisor killed after \(ms) ms"
        case .hypervisor(let ms): "hypervisor killed after \(ms) ms"
        case .daemon(let ms): "daemon killed after \(ms) ms"
        case .power(let ms): "power cut after \(ms) ms"
        case .full(let bytes): "disk full but for \(bytes) bytes"
        }
    }

    /// A guest that is shut down meanwhile has the time to write out all that it has.
    var isGentle: Bool {
        switch self {
        case .supervisor, .hypervisor, .daemon: false
        default: true
        }
    }
    var isPower: Bool { if case .power = self { true } else { false } }
    var isNone: Bool { if case .none = self { true } else { false } }
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
