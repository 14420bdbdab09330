// SPDX-License-Identifier: Apache-2.0
import Linux
import Testing

@testable import Commands

/// Completion in the shells themselves.
@Suite(.timeLimit(.minutes(20))) struct ShellTests {
    /// A folder with a fleet of one VM in a file whose name has a space.
    private static func makeFolder() throws -> String {
        let folder = try Martlet.makeFolder()
        try Files.write("\(folder)/my fleet.yaml", "vms: {web: {}}")
        return folder
    }

    @Test(
        .enabled(if: findProgram("bash") != nil, "needs bash"),
        arguments: [
            (["vers"], "version\n"), (["completion", ""], "bash\nzsh\nfish\n"),
            (["version", "--js"], "--json\n"),
            (["--file", "=", "my"], "compopt -o default\n"),
            (["init", ""], "compopt -o dirnames\n"),
            (["--file", "=", "my\\ fleet.yaml", "show", ""], "web\n"),
            (["-f", "'my fleet.yaml'", "show", "w"], "web\n"), (["show", ""], ""),
        ])
    func bash(_ words: [String], _ expected: String) async throws {
        let script = """
            source <(martlet completion bash)
            compopt() { echo "compopt $1 $2"; }  # what bash itself then completes
            COMP_WORDS=(martlet "$@"); COMP_CWORD=$#
            _martlet
            (( ${#COMPREPLY[@]} )) && printf '%s\\n' "${COMPREPLY[@]}" || true
            """
        let folder = try Self.makeFolder()
        defer { try? Files.remove(folder) }
        let output = try await Martlet.run(
            "/usr/bin/bash", ["--norc", "-c", script, "bash"] + words, in: folder)
        #expect(output.text == expected)
    }

    @Test(
        .enabled(if: findProgram("fish") != nil, "needs fish"),
        arguments: [
            ("martlet vers", "version\tPrint the version.\n"),
            ("martlet --json completion z", "zsh\n"),
            ("martlet -f my", "my fleet.yaml\n"),
            ("martlet --file=my", "--file=my fleet.yaml\n"),
        ])
    func fish(_ line: String, _ expected: String) async throws {
        let script = "martlet completion fish | source; complete -C $argv[1]"
        let folder = try Self.makeFolder()
        defer { try? Files.remove(folder) }
        let output = try await Martlet.run(
            "/usr/bin/fish", ["--no-config", "-c", script, line], in: folder)
        #expect(output.text == expected)
    }

    /// Zsh completes only at a terminal: zsh drives another zsh through its pty module.
    @Test(
        .enabled(if: findProgram("zsh") != nil, "needs zsh"),
        arguments: [
            ("martlet vers\t\n", "martlet \(VersionVerb.version)"),
            ("martlet completion f\t\n", "# fish completion"),
            ("martlet -q \t", "Print the version."), ("martlet -f my\tshow we\t\n", "KEY"),
            ("martlet --file=my\tshow we\t\n", "KEY"),
        ])
    func zsh(_ typed: String, _ expected: String) async throws {
        let script = """
            zmodload zsh/zpty
            zpty inner zsh -f -i
            zpty -w inner 'autoload -Uz compinit; compinit -D -u'
            zpty -w inner 'source <(martlet completion zsh); PROMPT="REA""DY> "'
            zpty -r inner text '*READY> '
            zpty -w -n inner "$1"
            zpty -r inner text "*$2*"
            print -r -- "$text"
            zpty -d inner
            """
        let folder = try Self.makeFolder()
        defer { try? Files.remove(folder) }
        let output = try await Martlet.run(
            "/usr/bin/timeout", ["20", "zsh", "-f", "-c", script, "zsh", typed, expected],
            in: folder)
        #expect(output.text.contains(expected))
    }
}
