// SPDX-License-Identifier: Apache-2.0
import Fleets
import Storage
import Testing

@testable import Engine

/// What bitmaps are believed, and which backups go: tables.
@Suite struct BackupPlanTests {
    private static func bitmap(
        _ id: String, recording: Bool = true, inconsistent: Bool = false
    ) -> DirtyBitmap {
        DirtyBitmap(name: "martlet-\(id)", isRecording: recording, isInconsistent: inconsistent)
    }

    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let found: [DirtyBitmap]
        var base: String? = "martlet-b"
        var retired: [String] = []
        let isBelieved: Bool
        var merge: [String] = []
        var remove: [String] = []
        var enable = false
    }

    @Test(arguments: [
        Case(testDescription: "the usual", found: [bitmap("b")], isBelieved: true),
        Case(testDescription: "none", found: [], isBelieved: false),
        Case(
            testDescription: "no parent", found: [bitmap("b")], base: nil, isBelieved: false,
            remove: ["martlet-b"]),
        Case(
            testDescription: "a crash", found: [bitmap("b", inconsistent: true)],
            isBelieved: false, remove: ["martlet-b"]),
        Case(
            testDescription: "one that was not removed yet", found: [bitmap("a"), bitmap("b")],
            retired: ["martlet-a"], isBelieved: true, remove: ["martlet-a"]),
        Case(
            testDescription: "a backup that was not finished",
            found: [bitmap("b", recording: false), bitmap("c")], isBelieved: true,
            merge: ["martlet-c"], remove: ["martlet-c"], enable: true),
        Case(
            testDescription: "nobody took note", found: [bitmap("b", recording: false)],
            isBelieved: false, remove: ["martlet-b"]),
        Case(
            testDescription: "what took note is in doubt",
            found: [bitmap("b", recording: false), bitmap("c", inconsistent: true)],
            isBelieved: false, remove: ["martlet-b", "martlet-c"]),
        Case(
            testDescription: "another disk's file", found: [bitmap("x")], isBelieved: false,
            remove: ["martlet-x"]),
        Case(
            testDescription: "somebody else's",
            found: [
                bitmap("b"),
                DirtyBitmap(name: "theirs", isRecording: true, isInconsistent: true),
            ], isBelieved: true),
    ])
    func bitmaps(_ test: Case) {
        let plan = BitmapPlan(found: test.found, base: test.base, retired: test.retired)
        #expect((plan.base != nil) == test.isBelieved)
        #expect(plan.merge == test.merge)
        #expect(plan.remove == test.remove)
        #expect(plan.enable == test.enable)
    }

    private func backups(_ list: [(day: Int64, parent: Int64?)]) -> [BackupRecord] {
        list.map { day, parent in
            var record = BackupRecord(
                id: "b\(day)", vm: "web", createdAt: day * 86400 + 100, bytes: 1, encrypted: false)
            record.kind = parent == nil ? .full : .incremental
            record.parent = parent.map { "b\($0)" }
            return record
        }
    }

    @Test func whatIsKeptKeepsItsParents() {
        let all = backups([(1, nil), (2, 1), (3, 2), (4, 3), (5, nil), (6, 5)])
        let now: Int64 = 7 * 86400
        func removed(_ days: Int) -> [String] {
            BackupPruning(all, keep: Retention(daily: days, weekly: 0), now: now).remove
        }
        #expect(removed(1) == ["b4", "b3", "b2", "b1"])
        #expect(removed(3) == [])
        #expect(removed(2) == ["b4", "b3", "b2", "b1"])
    }

    @Test func theNewestWholeChainStays() {
        // The newest rests on something that is gone: it alone would be worth nothing.
        let all = backups([(1, nil), (2, 1), (9, 8)])
        let pruning = BackupPruning(all, keep: Retention(daily: 1, weekly: 0), now: 10 * 86400)
        #expect(pruning.remove == [])
    }

    @Test func whatNobodyCanReadKeepsWhatItMayRestOn() {
        var all = backups([(1, nil), (2, nil), (3, nil)])
        all[1].kind = nil
        let pruning = BackupPruning(all, keep: Retention(daily: 1, weekly: 0), now: 10 * 86400)
        #expect(pruning.remove == [])
    }
}
