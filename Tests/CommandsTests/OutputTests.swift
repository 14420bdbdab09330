// SPDX-License-Identifier: Apache-2.0
import Engine
import Glibc
import Linux
import Synchronization
import Testing

@testable import Commands
@testable import Fleets

/// A printer whose two streams end in files that a test reads back.
struct Recorder {
    let printer: Printer
    private let output: Int32
    private let errors: Int32

    init(json: Bool = false, quiet: Bool = false) throws {
        output = temporaryFile()
        errors = temporaryFile()
        printer = Printer(
            json: json, quiet: quiet,
            output: Terminal(output, isTerminal: false, hasColour: false),
            errors: Terminal(errors, isTerminal: false, hasColour: false))
    }

    func outputText() throws -> String { try text(output) }
    func errorText() throws -> String { try text(errors) }

    private func text(_ descriptor: Int32) throws -> String {
        lseek(descriptor, 0, SEEK_SET)
        return String(decoding: try read(descriptor, 65536), as: UTF8.self)
    }
}

/// A file that loses its name at once.
private func temporaryFile() -> Int32 {
    var template = Array("/tmp/martlet-test-XXXXXX".utf8CString)
    let descriptor = mkstemp(&template)
    unlink(template)
    return descriptor
}

@Suite struct UnitsTests {
    @Test(
        arguments: [
            (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"),
            (536_870_912, "512 MiB"),
            (1_073_700_000, "1 GiB"), (8 << 40, "8 TiB"), (-2048, "-2 KiB"),
        ] as [(Int64, String)])
    func bytes(_ count: Int64, _ text: String) { #expect(Units.bytes(count) == text) }

    @Test(arguments: [
        (0.04, "0.0 s"), (4.12, "4.1 s"), (59.96, "1 min"), (60, "1 min"), (125, "2 min 5 s"),
        (3600, "1 hour"), (10_000, "2 hours"), (300_000, "3 days"),
    ])
    func durations(_ seconds: Double, _ text: String) {
        #expect(Units.duration(seconds: seconds) == text)
    }

    @Test(
        arguments: [
            (100, "just now"), (60, "40 s ago"), (-200, "5 min ago"), (-7100, "2 hours ago"),
            (-86_300, "1 day ago"), (101, "in the future"),
        ] as [(Int64, String)])
    func moments(_ moment: Int64, _ text: String) { #expect(Units.ago(moment, now: 100) == text) }
}

@Suite struct TableTests {
    private func sample() -> Table {
        var table = Table(["NAME", "STATE", .number("MEMORY"), "NOTE"])
        table.add(["web", Table.Cell("running", .good), "512 MiB", "a"])
        table.add(["データ", "stopped", "1 GiB", ""])
        table.add(["é🙂x", "\u{1b}[31mred", "16 GiB", "bell\u{7}"])
        return table
    }

    @Test func alignsByWhatIsSeen() {
        let text = sample().text(for: Terminal(-1, isTerminal: false, hasColour: false))
        #expect(
            text == """
                NAME    STATE           MEMORY  NOTE
                web     running        512 MiB  a
                データ  stopped          1 GiB  -
                é🙂x    \\u{1b}[31mred   16 GiB  bell\\u{7}

                """)
    }

    @Test func cutsOnlyOnATerminal() {
        var table = Table(["NAME", "NOTE"])
        table.add(["web", Table.Cell(String(repeating: "x", count: 100))])
        let screen = table.text(for: Terminal(-1, isTerminal: true, hasColour: false))
        #expect(screen.split(separator: "\n").map { displayWidth(String($0)) }.max() == 80)
        #expect(screen.contains("x…"))
        let pipe = table.text(for: Terminal(-1, isTerminal: false, hasColour: false))
        #expect(pipe.contains(String(repeating: "x", count: 100)))
    }

    @Test func coloursOnlyWhereThereIsColour() {
        let screen = sample().text(for: Terminal(-1, isTerminal: true, hasColour: true))
        #expect(screen.contains("\u{1b}[32mrunning\u{1b}[0m     "))
        let plain = sample().text(for: Terminal(-1, isTerminal: true, hasColour: false))
        #expect(!plain.contains("\u{1b}"))
    }

    @Test(arguments: [("abc", 2, "a…"), ("abc", 3, "abc"), ("日本語", 5, "日本…"), ("日本語", 4, "日…")])
    func truncation(_ text: String, _ width: Int, _ cut: String) {
        #expect(truncate(text, to: width) == cut)
    }
}

@Suite struct FailureTests {
    private let failure = Failure(
        .invalidFleet, "fleet.yaml has 1 mistake", hint: "Mend it.",
        diagnostics: [
            .init(
                file: "fleet.yaml", line: 12, column: 13, path: "vms.web.memory",
                message: "expected a size such as 512MiB, found 'lots'", severity: .error)
        ])

    @Test func forPeople() throws {
        let recorder = try Recorder()
        #expect(recorder.printer.report(failure) == 65)
        #expect(try recorder.outputText() == "")
        #expect(
            try recorder.errorText() == """
                fleet.yaml:12:13: vms.web.memory: expected a size such as 512MiB, found 'lots'
                error: fleet.yaml has 1 mistake
                hint: Mend it.

                """)
    }

    @Test func forScripts() throws {
        let recorder = try Recorder(json: true)
        #expect(recorder.printer.report(failure) == 65)
        #expect(try recorder.errorText() == "")
        #expect(
            try recorder.outputText() == """
                {
                  "error": {
                    "code": 65,
                    "message": "fleet.yaml has 1 mistake",
                    "hint": "Mend it.",
                    "diagnostics": [
                      {
                        "file": "fleet.yaml",
                        "line": 12,
                        "column": 13,
                        "path": "vms.web.memory",
                        "message": "expected a size such as 512MiB, found 'lots'",
                        "severity": "error"
                      }
                    ]
                  }
                }

                """)
    }

    @Test func ofOtherErrors() {
        #expect(Failure(SystemError("open /x", EACCES)).code == .noPrivilege)
        #expect(Failure(SystemError("write /x", ENOSPC)).hint?.contains("prune") == true)
        #expect(Failure(SystemError("open /x", ENOENT)).code == .failed)
        #expect(Failure(failure as any Error) == failure)
        struct Odd: Error {}
        #expect(Failure(Odd()) == Failure(.failed, "Odd()"))
    }

    @Test func textOfOthersCannotSteerTheTerminal() throws {
        let recorder = try Recorder()
        #expect(recorder.printer.report(Failure(.failed, "guest said \u{1b}[2J")) == 1)
        #expect(try recorder.errorText() == "error: guest said \\u{1b}[2J\n")
    }
}

@Suite struct ConfirmationTests {
    private let confirmation = Confirmation(
        "destroy web", losses: ["the data volume of web (8 GiB)"])

    @Test func refusesWithoutATerminal() async throws {
        let recorder = try Recorder()
        let error = await #expect(throws: Failure.self) {
            try await confirmation.require(yes: false, isInteractive: false, recorder.printer) {
                "yes"
            }
        }
        #expect(error?.code == .usage)
        #expect(error?.message == "'destroy web' would lose the data volume of web (8 GiB)")
    }

    @Test(arguments: [("yes", true), ("y", true), ("", false), ("no", false), (nil, false)])
    func asks(_ answer: String?, _ agrees: Bool) async throws {
        let recorder = try Recorder()
        var agreed = true
        do {
            try await confirmation.require(yes: false, isInteractive: true, recorder.printer) {
                answer
            }
        } catch is Failure {
            agreed = false
        }
        #expect(agreed == agrees)
        #expect(try recorder.errorText().contains("  the data volume of web (8 GiB)\ndestroy web?"))
    }

    @Test func yesAnswers() async throws {
        let recorder = try Recorder()
        try await confirmation.require(yes: true, isInteractive: false, recorder.printer) { nil }
        #expect(try recorder.errorText() == "")
    }
}

@Suite struct ProgressTests {
    @Test func plainLines() async throws {
        let recorder = try Recorder()
        let result = await recorder.printer.withProgress { progress in
            progress.step("web", "building the image")
            progress.step("web", "building the image")
            progress.step("web", "starting")
            progress.note("KVM is not usable: using TCG")
            progress.finish("web", "started")
            progress.finish("db", "no space", ok: false)
            return 5
        }
        #expect(result == 5)
        #expect(
            try recorder.errorText() == """
                web: building the image
                web: starting
                KVM is not usable: using TCG
                db: failed: no space

                """)
        #expect(try recorder.outputText() == "web: started\n")
    }

    @Test func quietShowsResultsAndFailuresOnly() async throws {
        let recorder = try Recorder(quiet: true)
        await recorder.printer.withProgress { progress in
            progress.step("web", "starting")
            progress.note("KVM is not usable: using TCG")
            progress.finish("web", "started")
            progress.finish("db", "no space", ok: false)
        }
        #expect(try recorder.errorText() == "db: failed: no space\n")
        #expect(try recorder.outputText() == "web: started\n")
    }

    @Test func aDocumentStandsAlone() async throws {
        let recorder = try Recorder(json: true)
        await recorder.printer.withProgress { $0.finish("web", "started") }
        #expect(try recorder.outputText() == "")
        #expect(try recorder.errorText() == "web: started\n")
        let outcomes = [
            Outcome(vm: "web", action: "start", seconds: 4.1234, result: .success("started")),
            Outcome(
                vm: "db", action: "start", seconds: 0.5,
                result: .failure(StoreError.locked(vm: "db"))),
        ]
        let failure = #expect(throws: Failure.self) { try recorder.printer.finish(outcomes) }
        // One reason has its own exit code, and the document is the only one.
        #expect(failure?.code == .locked)
        #expect(failure?.isReported == true)
        #expect(
            try recorder.outputText() == """
                {
                  "results": [
                    {
                      "vm": "web",
                      "action": "start",
                      "ok": true,
                      "seconds": 4.123,
                      "detail": "started"
                    },
                    {
                      "vm": "db",
                      "action": "start",
                      "ok": false,
                      "seconds": 0.5,
                      "detail": "db is being changed by another run of martlet; try again"
                    }
                  ]
                }

                """)
    }

    @Test func someFailed() throws {
        let recorder = try Recorder()
        let ok = Outcome(vm: "web", action: "start", seconds: 1, result: .success("started"))
        try recorder.printer.finish([ok])
        let reasons: [any Error] = [StoreError.locked(vm: "db"), SystemError("open", ENOENT)]
        let failed = reasons.map {
            Outcome(vm: "db", action: "start", seconds: 1, result: .failure($0))
        }
        let failure = #expect(throws: Failure.self) {
            try recorder.printer.finish([ok] + failed)
        }
        #expect(failure?.code == .failed)
        #expect(failure?.message == "2 of 3 failed")
    }

    @Test func theLiveBlockIsRedrawnInPlace() throws {
        let descriptor = temporaryFile()
        let time = Ticker()
        let progress = Progress(
            Terminal(descriptor, isTerminal: true, hasColour: false),
            results: Terminal(descriptor, isTerminal: true, hasColour: false), .live,
            now: { time.now() })
        progress.step("web", "starting")
        progress.step("db", "building")
        progress.finish("web", "started")
        progress.end()
        lseek(descriptor, 0, SEEK_SET)
        let text = String(decoding: try read(descriptor, 65536), as: UTF8.self)
        #expect(
            text.replacing("\u{1b}", with: "^") == """
                ⠋ web: starting  1.0 s
                ^[1A\r^[J⠋ web: starting  3.0 s
                ⠋ db: building  1.0 s
                ^[2A\r^[J✓ web: started (4.0 s)
                ⠋ db: building  3.0 s
                ^[1A\r^[J
                """)
    }
}

/// A clock that goes on by a second whenever it is read.
private final class Ticker: Sendable {
    private let seconds = Atomic<UInt64>(0)
    func now() -> UInt64 { seconds.add(1, ordering: .relaxed).newValue * 1_000_000_000 }
}
