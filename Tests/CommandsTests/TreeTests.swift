// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Testing

@testable import Arguments
@testable import Commands

/// Rules that hold for every verb.
@Suite struct TreeTests {
    /// Every command with the commands above it.
    static let paths: [[Command]] = {
        func below(_ path: [Command]) -> [[Command]] {
            [path] + (path.last?.subcommands ?? []).flatMap { below(path + [$0]) }
        }
        return below([Commands.root])
    }()

    /// Letters that a verb may take from a command above: the contract gives `-f` two meanings.
    static let shadowed = ["logs": ["f"], "events": ["f"]]

    @Test func textsAreSentences() {
        for path in TreeTests.paths {
            guard let command = path.last else { continue }
            let texts =
                [command.summary] + command.parameters.map(\.help)
                + command.sections.flatMap { $0.rows.map(\.text) } + command.examples.map(\.text)
            for text in texts {
                #expect(
                    text.hasSuffix(".") && text.first?.isLowercase == false,
                    "\(command.name): \(text)")
            }
            #expect(command.summary.count <= 72, "\(command.name)")
        }
    }

    @Test func noNameAndNoLetterMeansTwoThings() {
        for path in TreeTests.paths {
            guard let command = path.last else { continue }
            let all = path.flatMap(\.parameters)
            #expect(Set(all.map(\.id)).count == all.count, "\(command.name)")
            var letters: Set<Character> = ["h"]
            let allowed = TreeTests.shadowed[command.name] ?? []
            for letter in all.compactMap(\.short) where !letters.insert(letter).inserted {
                #expect(allowed.contains(String(letter)), "\(command.name): -\(letter)")
            }
            let names = command.subcommands.flatMap { [$0.name] + $0.aliases }
            #expect(Set(names).count == names.count, "\(command.name)")
        }
    }

    @Test func argumentsComeInAnOrderThatCanBeRead() {
        for path in TreeTests.paths {
            guard let arguments = path.last?.parameters(.argument) else { continue }
            #expect(arguments.dropLast().allSatisfy { !$0.isRepeated })
            let optional = arguments.drop(while: \.isRequired)
            #expect(optional.allSatisfy { !$0.isRequired })
        }
    }

    @Test func everyVerbShowsHowItIsUsed() throws {
        for path in TreeTests.paths {
            guard let command = path.last, command.groups.isEmpty, !command.isHidden else {
                continue
            }
            #expect(!command.examples.isEmpty, "\(command.name)")
        }
    }

    /// An example that cannot be parsed teaches a mistake.
    @Test func examplesAreUnderstood() throws {
        for example in TreeTests.paths.flatMap({ $0.last?.examples ?? [] }) {
            for part in example.line.split(separator: "&&") {
                let words = part.split(separator: " ").map(String.init)
                guard let start = words.firstIndex(where: { $0.hasSuffix("martlet") }) else {
                    continue
                }
                let line = words[(start + 1)...].prefix { ![">", "|", "<"].contains($0) }
                    .map { $0.filter { !"'\")".contains($0) } }
                _ = try Commands.root.parse(Array(line))
            }
        }
    }

    @Test(arguments: [60, 80, 200])
    func helpFitsTheScreen(_ width: Int) {
        for path in TreeTests.paths {
            let help = Help(path).text(width: width)
            // An example is one line, however long, so that it can be copied.
            let examples = Set((path.last?.examples ?? []).map { "  \($0.line)" })
            for line in help.split(separator: "\n").map(String.init) where !examples.contains(line)
            {
                let isOneWord = !line.drop { $0 == " " }.contains(" ")
                #expect(line.count <= width || isOneWord, "\(line)")
            }
        }
    }
}

@Suite struct DocumentTests {
    private static let repository = Files.parent(Files.parent(Files.parent(#filePath)))
    private static let folder = repository + "/docs"

    /// `make docs` writes it anew.
    @Test func theCommandReferenceIsCurrent() throws {
        let text = try Files.readText("\(DocumentTests.folder)/commands.md")
        #expect(text == Manual(Commands.root).markdown(), "run 'make docs'")
    }

    /// `make docs` writes it anew.
    @Test func theListOfServicesIsCurrent() throws {
        let text = try Files.readText("\(DocumentTests.folder)/services.md")
        #expect(text == (try ServicesDocument.text()), "run 'make docs'")
    }

    @Test func theFleetInTheReadmeIsValid() throws {
        let text = try Files.readText("\(DocumentTests.repository)/README.md")
        let blocks = text.split(separator: "```").filter { $0.hasPrefix("yaml\n") }
        #expect(!blocks.isEmpty)
        for block in blocks {
            #expect(FleetFile.parse(String(block.dropFirst(5))).diagnostics == [])
        }
    }

    /// A link in a document that leads nowhere.
    @Test(arguments: ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/design.md"])
    func linksLeadSomewhere(_ document: String) throws {
        let path = "\(DocumentTests.repository)/\(document)"
        for part in try Files.readText(path).components(after: "](") where !part.hasPrefix("http") {
            let target = part.prefix { $0 != ")" && $0 != "#" }
            #expect(Files.exists("\(Files.parent(path))/\(target)"), "\(document): \(target)")
        }
    }

    @Test func everyExitCodeIsExplained() throws {
        let text = try Files.readText("\(DocumentTests.folder)/exit-codes.md")
        for code in ExitCode.allCases {
            #expect(text.contains("| \(code.rawValue) | \(code.meaning) |"), "\(code)")
        }
    }

    @Test(
        .enabled(if: findProgram("groff") != nil, "needs groff"), .timeLimit(.minutes(20)))
    func theManPageIsWellFormed() async throws {
        var groff = Program("/usr/bin/groff", ["-man", "-ww", "-Tutf8", "-P-cbou"])
        groff.environment = ["PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"]
        let page = Manual(Commands.root).manPage(version: "1")
        let output = try await groff.capture(input: Array(page.utf8))
        #expect(output.exit.isSuccess)
        #expect(output.errorText == "")
        #expect(output.text.contains("martlet completion SHELL"))
    }
}

extension String {
    /// What follows each occurrence of a text.
    fileprivate func components(after text: String) -> [Substring] {
        ranges(of: text).map { self[$0.upperBound...] }
    }
}
