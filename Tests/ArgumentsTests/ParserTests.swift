// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Arguments

/// A small program with every kind of parameter.
enum Sample {
    enum Goal: String, CaseIterable, ArgumentValue { case running, healthy, stopped }

    static let file = Key<String?>.option("file", "f", value: "FILE", "A file.", candidates: .files)
    static let json = Key.flag("json", "JSON.")
    static let quiet = Key.flag("quiet", "q", "No words.")

    static let names = Key<[String]>.arguments(
        "NAME", "VMs.", candidates: .found { _ in [Candidate("web", "running"), Candidate("db")] })
    static let goal = Key<Goal>.requiredOption("for", value: "STATE", "What to wait for.")
    static let count = Key.option("count", "n", value: "COUNT", "How many.", default: 3)
    static let wait = Command("wait", "Wait.", parameters: [names, goal, count]) { _ in }

    static let follow = Key.flag("follow", "f", "Go on.")
    static let all = Key.flag("all", "a", "All.")
    static let name = Key<String>.argument("NAME", "The VM.")
    static let add = Key<[String]>.options("add", "x", value: "WORD", "Words.")
    static let logs = Command(
        "logs", aliases: ["log"], "Logs.", parameters: [name, follow, all, add]
    ) { _ in }

    static let command = Key.rest("COMMAND", "What to run.", required: true)
    static let exec = Command(
        "exec", "Run.", parameters: [name, command], exitCodes: [("N", "The command's own.")]
    ) { _ in 7 }

    static let source = Key<Int>.argument("SRC", "From.")
    static let target = Key<Int?>.argument("DST", "To.")
    static let move = Command("move", "Move.", parameters: [source, target]) { _ in }

    static let removed = Key<[String]>.arguments("IMAGE", "Images.", required: true)
    static let remove = Command("rm", "Remove.", parameters: [removed]) { _ in }
    static let hidden = Command("secretly", "Hidden.", isHidden: true) { _ in }

    static let root = Command(
        "tool", "A tool.", parameters: [file, json, quiet],
        groups: [
            .init("FLEET", [wait, logs, exec, move]),
            .init("IMAGES", [Command("image", "Images.", subcommands: [remove]), hidden]),
        ])

    static func parse(_ line: String) throws -> Arguments {
        let request = try root.parse(line.split(separator: " ").map(String.init))
        guard case .run(let arguments) = request else { throw Missing() }
        return arguments
    }
    struct Missing: Error {}
}

@Suite struct ParserTests {
    @Test(arguments: [
        "wait web db --for healthy -n 5", "wait --for=healthy web -n5 db",
        "wait -n=5 web db --for healthy",
        "wait --for running --for healthy web --count=5 db",
        "wait --count 5 --for healthy -- web db",
    ])
    func spellings(_ line: String) throws {
        let arguments = try Sample.parse(line)
        #expect(arguments[Sample.names] == ["web", "db"])
        #expect(arguments[Sample.goal] == .healthy)
        #expect(arguments[Sample.count] == 5)
        #expect(arguments.verb == "wait")
    }

    @Test(arguments: [
        "-f x --json wait --for running", "wait --for running --file=x --json",
        "--file x wait -fx --json --for running",
    ])
    func globalOptionsStandAnywhere(_ line: String) throws {
        let arguments = try Sample.parse(line)
        #expect(arguments[Sample.file] == "x")
        #expect(arguments[Sample.json] && !arguments[Sample.quiet])
        #expect(arguments[Sample.names].isEmpty)
        #expect(arguments[Sample.count] == 3 && !arguments.isGiven(Sample.count))
    }

    @Test func aVerbsOwnLetterWins() throws {
        let arguments = try Sample.parse("-f fleet log -faq web -x one -xtwo --add=")
        #expect(arguments[Sample.file] == "fleet")
        #expect(arguments[Sample.follow] && arguments[Sample.all] && arguments[Sample.quiet])
        #expect(arguments[Sample.add] == ["one", "two", ""])
        #expect(arguments.verb == "logs")
    }

    @Test func theRestIsUntouched() async throws {
        let arguments = try Sample.parse("exec web --json -- ls --json -- -x")
        #expect(arguments[Sample.command] == ["ls", "--json", "--", "-x"])
        #expect(arguments[Sample.json])
        #expect(try await arguments.run() == 7)
    }

    @Test func negativeNumbersAreValues() throws {
        #expect(try Sample.parse("move -5 -7")[Sample.target] == -7)
        #expect(try Sample.parse("move 5")[Sample.target] == nil)
        #expect(try Sample.parse("wait --for running -n -2")[Sample.count] == -2)
    }

    @Test func nestedVerbs() throws {
        let arguments = try Sample.parse("image -q rm base")
        #expect(arguments.verb == "image rm")
        #expect(arguments[Sample.removed] == ["base"] && arguments[Sample.quiet])
    }

    @Test(arguments: [
        ("--help", "tool"), ("help", "tool"), ("help wait", "tool wait"),
        ("-q help wait", "tool wait"), ("wait -h", "tool wait"),
        ("-h image rm", "tool image rm"), ("help image", "tool image"), ("help help", "tool"),
        ("wait --for running --help", "tool wait"), ("wait -qh", "tool wait"),
    ])
    func help(_ line: String, _ verb: String) throws {
        let request = try Sample.root.parse(line.split(separator: " ").map(String.init))
        guard case .help(let path) = request else {
            Issue.record("expected help for \(line)")
            return
        }
        #expect(path.map(\.name).joined(separator: " ") == verb)
    }

    @Test(arguments: [
        ("wiat", "unknown verb 'wiat'", "Did you mean 'wait'?"),
        ("im", "unknown verb 'im'", "Did you mean 'image'?"),
        ("help wiat", "unknown verb 'wiat'", "Did you mean 'wait'?"),
        ("secretl", "unknown verb 'secretl'", "See 'tool --help'."),
        ("image mr", "unknown verb 'mr'", "Did you mean 'rm'?"),
        ("image", "a verb is missing after 'tool image'", "See 'tool image --help'."),
        ("wait --fro running", "unknown option '--fro'", "Did you mean '--for'?"),
        ("wait --jsn", "unknown option '--jsn'", "Did you mean '--json'?"),
        ("wait -z", "unknown option '-z'", "See 'tool wait --help'."),
        ("wait --for", "--for: expected running, healthy or stopped, found nothing", nil),
        (
            "wait --for --json", "--for: expected running, healthy or stopped, found '--json'",
            "A value that begins with '-' is written '--for=--json'."
        ),
        (
            "wait --for runing", "--for: expected running, healthy or stopped, found 'runing'",
            "Did you mean 'running'?"
        ),
        ("wait --for running -n two", "--count: expected a whole number, found 'two'", nil),
        ("wait", "missing --for STATE", nil),
        ("wait --json=yes", "option '--json' takes no value", nil),
        ("logs", "missing NAME", nil),
        ("logs a b", "unexpected argument 'b'", nil),
        ("move two", "SRC: expected a whole number, found 'two'", nil),
        ("exec web", "missing -- COMMAND", nil),
        ("exec web ls", "unexpected argument 'ls'", "Write the command after '--'."),
        (
            "exec web ls -l", "unknown option '-l'",
            "Options of the command to run belong after '--'."
        ),
        ("image rm", "missing IMAGE", "See 'tool image rm --help'."),
    ])
    func mistakes(_ line: String, _ message: String, _ hint: String?) throws {
        let error = #expect(throws: UsageError.self) { try Sample.parse(line) }
        #expect(error?.message == message)
        if let hint { #expect(error?.hint == hint) }
    }

    @Test(arguments: [
        ("lsit", "list"), ("lst", "list"), ("st", "start"), ("x", nil), ("qqqq", nil),
        ("destory", "destroy"),
    ])
    func nearestWord(_ typed: String, _ meant: String?) {
        #expect(nearest(typed, among: ["start", "list", "destroy", "up"]) == meant)
    }
}
