// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Engine

@Suite struct UpgradeRecordTests {
    @Test(
        arguments: [
            // Switched, and others on top of it while it waited.
            (UpgradeRecord.Stage.waiting, 5, UpgradeRecord.Step.wait), (.waiting, 4, .wait),
            (.waiting, 3, .forget), (.waiting, 2, .forget), (.waiting, 6, .forget),
            (.trying, 5, .judge), (.trying, 3, .forget), (.trying, 6, .forget),
            (.returning, 5, .giveBack), (.returning, 3, .giveBack), (.returning, 6, .forget),
            (.restored, 5, .startOld), (.restored, 3, .startOld), (.restored, 6, .forget),
        ]) func whatIsLeftToDo(
            stage: UpgradeRecord.Stage, current: Int, expected: UpgradeRecord.Step
        )
    {
        let record = UpgradeRecord(
            from: 3, to: 5, snapshot: nil, starts: true, startedAt: 0, stage: stage,
            failedUnits: nil, failure: nil)
        #expect(record.step(current: current) == expected)
        #expect(record.step(current: nil) == .forget)
    }

    @Test func reportsSayWhatIsWhere() {
        var back = UpgradeError.Return(
            vm: "web", digest: "sha256:0123456789abcdef", reason: "no boot", generation: 3,
            snapshot: "s1", dataOf: 1_795_180_000, failedState: "s2")
        let head = "the upgrade to 0123456789ab failed (no boot)"
        #expect(
            UpgradeError.returned(back).description
                == "\(head): it is back on generation 3 with the data of 2026-11-20T13:06:40Z "
                + "(snapshot 's1'); the state that failed is the snapshot 's2'")
        let stuck = UpgradeError.stuck(back, because: "no space", isDataBack: false)
        #expect(
            stuck.description
                == "\(head), and its data could not be given back: no space. The data of before is "
                + "the snapshot 's1', to be used with generation 3: 'martlet start web' tries it "
                + "again")
        (back.dataOf, back.failedState) = (nil, nil)
        #expect(UpgradeError.returned(back).description.contains("the snapshot 's1' is gone"))
    }
}
