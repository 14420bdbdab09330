// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Arguments
@testable import Commands

/// Guides are typed in, line by line, by people who do not know yet what a mistake in them is.
@Suite(.timeLimit(.minutes(20))) struct GuideTests {
    private static let repository = Files.parent(Files.parent(Files.parent(#filePath)))
    static let guides = [
        "browser", "forge", "from-libvirt", "from-microvm-nix", "media", "slots", "vault", "vpn",
    ]

    private func read(_ path: String) throws -> String {
        try Files.readText("\(GuideTests.repository)/\(path)")
    }

    /// The parts of a page, between its code fences in turn; each block begins with its language.
    private func parts(_ guide: String) throws -> (prose: [String], blocks: [String]) {
        let all = try read("docs/guides/\(guide).md").split(
            separator: "```", omittingEmptySubsequences: false
        ).map(String.init)
        let numbered = all.enumerated()
        return (
            numbered.filter { $0.offset % 2 == 0 }.map(\.element),
            numbered.filter { $0.offset % 2 == 1 }.map(\.element)
        )
    }

    @Test func allAreFound() throws {
        let files = try Files.list("\(GuideTests.repository)/docs/guides")
        #expect(files.sorted() == GuideTests.guides.map { $0 + ".md" })
        for guide in GuideTests.guides {
            #expect(try read("README.md").contains("(docs/guides/\(guide).md)"), "\(guide)")
            #expect(try read("docs/catalogue.md").contains("(guides/\(guide).md)"), "\(guide)")
        }
    }

    @Test(arguments: guides) func theFleetIsTheExample(guide: String) throws {
        let example = try read("examples/\(guide).yaml")
        let yaml = try parts(guide).blocks.filter { $0.hasPrefix("yaml\n") }
        #expect(yaml.contains("yaml\n" + example), "the guide shows another fleet than the example")
        for block in yaml where block.contains("\nvms:") {
            let file = FleetFile.parse(String(block.dropFirst("yaml\n".count)))
            #expect(file.fleet != nil && file.errors == [], "\(file.errors)")
            // The one thing that is warned of is what the guide of the media services explains.
            for warning in file.diagnostics {
                #expect(guide == "media" && warning.message.contains("/mnt/storage/media"))
            }
        }
    }

    @Test(
        .enabled(if: geteuid() == 0, "only root makes networks"), arguments: guides)
    func theFleetCanBePlanned(guide: String) async throws {
        let folder = try Martlet.makeFolder()
        defer { try? Files.remove(folder) }
        let text = try read("examples/\(guide).yaml")
        try Files.write("\(folder)/fleet.yaml", text)
        let output = try await Martlet.martlet("plan", "--json", in: folder)
        #expect(output.exit == .code(0), "\(output.errorText)")
        let changes = try #require(
            try JSONValue(parsing: output.standardOutput)["changes"]?.elements)
        let vms = try #require(FleetFile.parse(text).fleet?.vms)
        #expect(Set(changes.compactMap { $0["vm"]?.string }) == Set(vms.map(\.name)))
        for change in changes {
            #expect(["build", "create"].contains(change["action"]?.string), "\(change)")
        }
    }

    @Test(arguments: guides) func whatIsTypedExists(guide: String) throws {
        let (prose, blocks) = try parts(guide)
        var lines: [String] = prose.flatMap { text in
            text.split(separator: "`", omittingEmptySubsequences: false).enumerated()
                .filter { $0.offset % 2 == 1 }
                .map { String($0.element).replacing("\n", with: " ") }
        }
        for block in blocks {
            let typed = block.split(separator: "\n").dropFirst().map(String.init)
            if block.hasPrefix("sh\n") { lines += typed }
            if block.hasPrefix("console\n") {
                lines += typed.filter { $0.hasPrefix("$ ") }.map { String($0.dropFirst(2)) }
            }
        }
        var count = 0
        for line in lines {
            for command in line.split(separator: " #")[0].split(separator: "|") {
                let words = command.split(separator: " ").map { $0.filter { !"'\"".contains($0) } }
                guard words.first == "martlet", words.count > 1 else { continue }
                count += 1
                #expect(throws: Never.self, "\(command)") {
                    try Commands.root.parse(Array(words.dropFirst()))
                }
            }
        }
        #expect(count > 5)
    }

    /// A guide says of each service what its entry says, and no more.
    @Test(arguments: guides) func nothingIsClaimedThatWasNotTried(guide: String) throws {
        let rows = try read("docs/services.md").split(separator: "\n")
        let text = try read("docs/guides/\(guide).md")
        let fleet = try #require(FleetFile.parse(try read("examples/\(guide).yaml")).fleet)
        for service in Set(fleet.vms.compactMap(\.service)) {
            let row = try #require(rows.first { $0.hasPrefix("| [`\(service)`]") })
            let how = try #require(row.split(separator: "|").last).filter { $0 != " " }
            #expect(text.contains("`\(service)`: \(how)"), "\(service) is \(how)")
        }
    }

    @Test(arguments: ["from-libvirt": "guide.xml", "from-microvm-nix": "guide.sh"])
    func theImportIsShownAsItIs(guide: String, document: String) throws {
        let golden = try read("Tests/ImportsTests/Goldens/\(document).yaml")
        let entry = try #require(golden.ranges(of: "\n\n").last).upperBound
        let blocks = try parts(guide).blocks
        #expect(blocks.contains("yaml\n" + golden[entry...]), "\(golden[entry...])")
        let notes = golden.split(separator: "\n").filter { $0.hasPrefix("# ") }
        let shown = blocks.filter { $0.hasPrefix("console\n") }.joined()
            .split(separator: "\n").filter { $0.hasPrefix("# ") }
        #expect(!shown.isEmpty)
        for line in shown { #expect(notes.contains(line), "\(line)") }
    }

    @Test(arguments: guides) func linksLeadSomewhere(guide: String) throws {
        let folder = "\(GuideTests.repository)/docs/guides"
        let text = try read("docs/guides/\(guide).md")
        for range in text.ranges(of: "](") {
            let target = text[range.upperBound...].prefix { $0 != ")" && $0 != "#" }
            #expect(target.hasPrefix("http") || Files.exists("\(folder)/\(target)"), "\(target)")
        }
    }
}
