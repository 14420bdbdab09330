// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Commands

/// The program that was built with the tests, run for real.
struct Martlet {
    /// The folder of this test's executable holds the product as well.
    static let folder: String = {
        let path = realpath("/proc/self/exe", nil)
        defer { free(path) }
        return path.map { Files.parent(String(cString: $0)) } ?? ""
    }()

    /// A new empty folder.
    static func makeFolder() throws -> String {
        var template = Array("/tmp/martlet-test-XXXXXX".utf8CString)
        return try #require(mkdtemp(&template).map { String(cString: $0) })
    }

    /// Runs a program with `martlet` in its PATH and nothing of the tester's environment.
    static func run(
        _ program: String, _ arguments: [String], in folder: String = "/tmp"
    ) async throws -> Output {
        var program = Program(program, arguments)
        program.environment = [
            "PATH=\(Martlet.folder):/usr/bin:/bin", "HOME=\(folder)", "MARTLET_ROOT=\(folder)/root",
            "LC_ALL=C.UTF-8", "TERM=xterm",
        ]
        program.folder = folder
        return try await program.capture()
    }

    /// Runs `martlet` in a folder, which also holds its ROOT.
    static func martlet(_ arguments: String..., in folder: String = "/tmp") async throws -> Output {
        try await run("\(self.folder)/martlet", arguments, in: folder)
    }
}

@Suite(.timeLimit(.minutes(20))) struct ProgramTests {
    @Test func version() async throws {
        let output = try await Martlet.martlet("version")
        #expect(output.text == "martlet \(VersionVerb.version)\n")
        #expect(output.exit == .code(0))
        #expect(try await Martlet.martlet("--version").text == output.text)
    }

    @Test func mistakesGoToStandardErrorWithCode64() async throws {
        let output = try await Martlet.martlet("versoin")
        #expect(output.exit == .code(64))
        #expect(output.text == "")
        #expect(
            output.errorText == "error: unknown verb 'versoin'\nhint: Did you mean 'version'?\n")
    }

    @Test func mistakesAreADocumentForScripts() async throws {
        let output = try await Martlet.martlet("versoin", "--json")
        #expect(output.exit == .code(64))
        #expect(output.errorText == "")
        #expect(output.text.contains(#""message": "unknown verb 'versoin'""#))
    }

    @Test func nothingToDoShowsTheHelp() async throws {
        let output = try await Martlet.martlet()
        #expect(output.exit == .code(64))
        #expect(output.errorText.hasPrefix("OVERVIEW\n"))
        #expect(output.text == "")
    }
}

@Suite(.timeLimit(.minutes(20))) struct FleetVerbTests {
    @Test func initWritesAFleetThatIsValidAndNeverOverAnother() async throws {
        let folder = try Martlet.makeFolder()
        defer { try? Files.remove(folder) }
        let first = try await Martlet.martlet("init", "My Home", in: folder)
        #expect(first.text == "My Home/fleet.yaml\n")
        let file = "\(folder)/My Home/fleet.yaml"
        #expect(try Files.readText(file).hasPrefix("fleet: my-home\n"))
        try Files.write(file, try Files.readText(file) + "# mine\n")
        let second = try await Martlet.martlet("init", "My Home", in: folder)
        #expect(second.exit == .code(1))
        #expect(try Files.readText(file).hasSuffix("# mine\n"))
        #expect(try Files.list("\(folder)/My Home") == ["fleet.yaml"])
        let valid = try await Martlet.martlet("validate", "-f", file, in: folder)
        #expect(valid.exit == .code(0) && valid.text == "" && valid.errorText == "")
    }

    /// A key that waits behind `#` must work when it is wanted.
    @Test func theStartersCommentsAreValidToo() throws {
        let lines = InitVerb.starter.split(separator: "\n", omittingEmptySubsequences: false)
        let used = lines.map { line in
            let indent = line.prefix { $0 == " " }
            let rest = line.dropFirst(indent.count)
            let isKey = rest.hasPrefix("#") && rest.dropFirst().first?.isLetter == true
            return isKey ? indent + rest.dropFirst() : line
        }
        var sources = FleetFile.Sources { _ in Array(used.joined(separator: "\n").utf8) }
        sources.directory = "/srv"
        let file = FleetFile.load("fleet.yaml", from: sources)
        #expect(file.diagnostics.map(\.description) == [])
        #expect(file.fleet?.vm("hello")?.ports.count == 1)
    }

    @Test func theFleetFileIsLookedForInThisOrder() async throws {
        let folder = try Martlet.makeFolder()
        defer { try? Files.remove(folder) }
        let none = try await Martlet.martlet("validate", in: folder)
        #expect(none.exit == .code(66))
        #expect(none.errorText.contains("make one: 'martlet init'"))
        try Files.write("\(folder)/fleet.yaml", "vms: {here: {}}")
        try Files.write("\(folder)/other.yaml", "vms: {there: {}}")
        #expect(try await Martlet.martlet("show", "here", in: folder).exit == .code(0))
        let other = try await Martlet.martlet("show", "-f", "other.yaml", "here", in: folder)
        #expect(other.exit == .code(66))
        #expect(other.errorText.contains("Did you mean 'there'?"))
        var program = Program("\(Martlet.folder)/martlet", ["show", "there"])
        program.environment = ["MARTLET_FLEET=other.yaml"]
        program.folder = folder
        #expect(try await program.capture().exit == .code(0))
        #expect(try await Martlet.martlet("validate", "-f", "no", in: folder).exit == .code(66))
    }

    @Test func everyMistakeIsPrintedWithItsPlace() async throws {
        let folder = try Martlet.makeFolder()
        defer { try? Files.remove(folder) }
        try Files.write("\(folder)/fleet.yaml", "vms:\n  web: {memory: lots, vcpus: 2}\n")
        let text = try await Martlet.martlet("validate", in: folder)
        #expect(text.exit == .code(65))
        #expect(text.text == "")
        let lines = text.errorText.split(separator: "\n")
        #expect(lines.count == 3)
        #expect(lines[0].hasPrefix("fleet.yaml:2:17: vms.web.memory: expected a size"))
        #expect(lines[1].hasPrefix("fleet.yaml:2:23: vms.web.vcpus: unknown key"))
        #expect(lines[2] == "error: fleet.yaml has 2 mistakes")
        let json = try await Martlet.martlet("validate", "--json", in: folder)
        #expect(json.exit == .code(65) && json.errorText == "")
        let document = try JSONValue(parsing: json.standardOutput)
        #expect(document["error"]?["code"] == 65)
        #expect(document["error"]?["diagnostics"]?.elements.first?["line"] == 2)
    }

    @Test func showNamesTheOriginOfEachValue() async throws {
        let folder = try Martlet.makeFolder()
        defer { try? Files.remove(folder) }
        try Files.write(
            "\(folder)/fleet.yaml", "defaults: {vcpu: 2}\nvms:\n  web: {memory: 1GiB}\n")
        let document = try JSONValue(
            parsing: try await Martlet.martlet("show", "web", "--json", in: folder).standardOutput)
        let origins = (document["keys"]?.elements ?? []).reduce(into: [:]) {
            $0[$1["path"]?.string ?? ""] = $1["origin"]?.string
        }
        #expect(origins["vcpu"] == "fleet.yaml:1 (defaults)")
        #expect(origins["memory"] == "fleet.yaml:3")
        #expect(origins["disk"] == "default")
    }

    @Test func schemaIsADocument() async throws {
        let output = try await Martlet.martlet("schema")
        #expect(try JSONValue(parsing: output.standardOutput) == FleetFile.schema)
    }

    @Test func completionKnowsTheVMs() async throws {
        let folder = try Martlet.makeFolder()
        defer { try? Files.remove(folder) }
        try Files.write("\(folder)/fleet.yaml", "vms: {web: {}, work: {}}")
        try Files.makeFolder("\(folder)/root/vms/wild")
        let output = try await Martlet.martlet("__complete", "fish", "--", "show", "w", in: folder)
        #expect(output.text == "web\tdeclared\nwork\tdeclared\nwild\tnot declared\n")
    }
}
