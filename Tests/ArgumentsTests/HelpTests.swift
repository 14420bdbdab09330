// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Arguments

@Suite struct HelpTests {
    @Test func ofAVerb() {
        #expect(
            Help([Sample.root, Sample.wait]).text(width: 50) == """
                OVERVIEW
                  Wait.

                USAGE
                  tool wait [NAME...] --for STATE
                      [--count COUNT]

                ARGUMENTS
                  NAME  VMs.

                OPTIONS
                      --for STATE    What to wait for. One of
                                     running, healthy or stopped.
                  -n, --count COUNT  How many. Default: 3.
                  -h, --help         Show this help.

                GLOBAL OPTIONS
                  -f, --file FILE  A file.
                      --json       JSON.
                  -q, --quiet      No words.

                """)
    }

    @Test func aHiddenLetterIsNotShown() {
        let text = Help([Sample.root, Sample.logs]).text()
        #expect(text.contains("  -f, --follow"))
        #expect(text.contains("      --file FILE"))
    }

    @Test func ofTheRoot() {
        let text = Help([Sample.root]).text()
        #expect(text.contains("FLEET\n  wait       Wait.\n  logs, log  Logs.\n"))
        #expect(!text.contains("secretly"))
        #expect(text.contains("tool [OPTIONS] VERB ..."))
    }

    @Test func ofAVerbThatPassesACommandOn() {
        let text = Help([Sample.root, Sample.exec]).text()
        #expect(text.contains("tool exec NAME -- COMMAND..."))
        #expect(text.contains("EXIT CODES\n  N  The command's own.\n"))
    }

    @Test func nothingIsWiderThanTheScreen() {
        for command in Sample.root.subcommands {
            let lines = Help([Sample.root, command]).text(width: 60).split(separator: "\n")
            #expect(lines.allSatisfy { $0.count <= 60 })
        }
    }
}

@Suite struct CompletionTests {
    @Test(arguments: [
        ("", ["wait", "logs", "exec", "move", "image"]), ("w", ["wait"]), ("image ", ["rm"]),
        ("wait ", ["web", "db"]), ("wait w", ["web"]), ("wait web ", ["db"]),
        ("wait --for ", ["running", "healthy", "stopped"]), ("wait --for=h", ["--for=healthy"]),
        ("wait --c", ["--count"]), ("wait -q --q", []), ("exec web -- l", []),
        ("--file x im", ["image"]), ("bogus --what ", ["wait", "logs", "exec", "move", "image"]),
    ])
    func words(_ line: String, _ expected: [String]) async {
        let completion = await Sample.root.complete(split(line))
        #expect(completion.candidates.map(\.word) == expected)
    }

    @Test(arguments: [("--file ", true), ("wait ", false), ("exec web -- ", true), ("-f", false)])
    func paths(_ line: String, _ offersFiles: Bool) async {
        #expect(await Sample.root.complete(split(line)).paths == (offersFiles ? .files : .none))
    }

    @Test func descriptions() async {
        let completion = await Sample.root.complete(["wait", ""])
        #expect(completion.candidates.first == Candidate("web", "running"))
    }

    @Test func bashBreaksWordsAtColonsAndEqualSigns() async {
        let words = Shell.bash.words(["wait", "--for", "=", "h"])
        #expect(words == ["wait", "--for=h"])
        #expect(Shell.bash.words(["cp", "web", ":", "/etc"]) == ["cp", "web:/etc"])
        let completion = await Sample.root.complete(words)
        #expect(Shell.bash.answer(completion, for: words) == "healthy\n")
    }

    private func split(_ line: String) -> [String] {
        line.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
    }
}
