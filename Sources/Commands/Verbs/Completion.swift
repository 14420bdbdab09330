// SPDX-License-Identifier: Apache-2.0
import Arguments

enum CompletionVerb {
    static let shell = Key<Shell>.argument("SHELL", "The shell.")

    static let command = Command(
        "completion", "Print the completion script of a shell.",
        discussion: "The script asks martlet itself, so it also knows the names of your VMs.",
        parameters: [shell],
        examples: [
            .init(
                "source <(martlet completion bash)", "Complete in this bash; put it into ~/.bashrc."
            ),
            .init(
                "martlet completion zsh > ~/.zfunc/_martlet",
                "For zsh, in a folder of your fpath."),
            .init(
                "martlet completion fish > ~/.config/fish/completions/martlet.fish", "For fish."),
        ]
    ) { arguments in
        Printer(arguments).write(arguments[shell].script(program: "martlet"))
    }
}

/// What the completion scripts call.
enum CompleteVerb {
    static let shell = Key<Shell>.argument("SHELL", "The shell that asks.")
    static let words = Key.rest("WORDS", "The command line up to the cursor.")

    static let command = Command(
        "__complete", "Print what completes a command line.", parameters: [shell, words],
        isHidden: true
    ) { arguments in
        let shell = arguments[shell]
        let words = shell.words(arguments[words])
        let completion = await Commands.root.complete(words)
        Printer(arguments).write(shell.answer(completion, for: words))
    }
}
