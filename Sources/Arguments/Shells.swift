// SPDX-License-Identifier: Apache-2.0

/// A shell that completes our command line by asking the program itself.
package enum Shell: String, CaseIterable, ArgumentValue {
    case bash
    case zsh
    case fish

    /// The lines that connect the shell to `PROGRAM __complete SHELL -- WORDS`.
    ///
    /// They hold no verb and no option, so they never grow old.
    package func script(program: String) -> String {
        switch self {
        case .bash: bashScript(program)
        case .zsh: zshScript(program)
        case .fish: fishScript(program)
        }
    }

    /// The words of the command line after the program's name, the last one under the cursor.
    package func words(_ words: [String]) -> [String] {
        self == .bash ? joined(words).map(unquoted) : words
    }

    /// What the script reads: one `word<TAB>description` a line; `:files` and `:folders` ask the shell for paths.
    package func answer(_ completion: Completion, for words: [String]) -> String {
        var lines = completion.candidates.map { candidate in
            switch self {
            case .bash: tail(candidate.word, words.last, after: "=:")
            case .zsh: "\(tail(candidate.word, words.last, after: "="))\t\(candidate.description)"
            case .fish: "\(candidate.word)\t\(candidate.description)"
            }
        }
        switch completion.paths {
        case .none: break
        case .files: lines.append(":files")
        case .folders: lines.append(":folders")
        }
        return lines.map { $0 + "\n" }.joined()
    }

    /// Bash breaks words at `=` and `:`; this joins them again.
    private func joined(_ words: [String]) -> [String] {
        var result: [String] = []
        var glue = false
        for word in words {
            let isBreak = word == "=" || word == ":"
            if (glue || isBreak), let last = result.popLast() {
                result.append(last + word)
            } else {
                result.append(word)
            }
            glue = isBreak
        }
        return result
    }

    /// Bash hands words on as they were typed.
    private func unquoted(_ word: String) -> String {
        var result = ""
        var quote: Character?
        var isEscaped = false
        for character in word {
            if isEscaped {
                isEscaped = false
                result.append(character)
            } else if character == "\\", quote != "'" {
                isEscaped = true
            } else if character == quote {
                quote = nil
            } else if quote == nil, character == "'" || character == "\"" {
                quote = character
            } else {
                result.append(character)
            }
        }
        return result
    }

    /// The part of a candidate that the shell has not set aside as finished: `fleet.yaml` of `--file=fleet.yaml`.
    private func tail(_ candidate: String, _ typed: String?, after breaks: String) -> String {
        guard let typed, let last = typed.lastIndex(where: { breaks.contains($0) }) else {
            return candidate
        }
        return String(candidate.dropFirst(typed[...last].count))
    }
}

private func bashScript(_ program: String) -> String {
    """
    # bash completion for \(program)
    _\(program)() {
        local IFS=$'\\n' line
        COMPREPLY=()
        for line in $("${COMP_WORDS[0]}" __complete bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
            case $line in
            :files) compopt -o default ;;
            :folders) compopt -o dirnames ;;
            *) COMPREPLY+=("$line") ;;
            esac
        done
    }
    complete -F _\(program) \(program)

    """
}

private func zshScript(_ program: String) -> String {
    """
    #compdef \(program)
    _\(program)() {
        local line word
        local -a candidates
        local -a given=("${(@Q)words[2,CURRENT]}")
        [[ $PREFIX == --*=* ]] && compset -P '*='
        for line in ${(f)"$("${words[1]}" __complete zsh -- "${(@)given}" 2>/dev/null)"}; do
            case $line in
            :files) _files ;;
            :folders) _files -/ ;;
            *)
                word=${line%%$'\\t'*}
                candidates+=("${word//:/\\\\:}:${line#*$'\\t'}")
                ;;
            esac
        done
        (( $#candidates )) && _describe -V \(program) candidates
    }
    if [[ $funcstack[1] == _\(program) ]]; then _\(program) "$@"; else compdef _\(program) \(program); fi

    """
}

private func fishScript(_ program: String) -> String {
    """
    # fish completion for \(program)
    function __\(program)_complete
        set -l token (commandline -ct)
        set -l words (commandline -opc) $token
        # The value of --option=VALUE is completed as a path of its own.
        set -l option (string match -r -- '^--[^=]+=' $token)
        set -l value (string replace -- "$option" '' $token)
        for line in ($words[1] __complete fish -- $words[2..-1] 2>/dev/null)
            switch $line
                case ':files'
                    __fish_complete_path $value | string replace -r -- '^' "$option"
                case ':folders'
                    __fish_complete_directories $value | string replace -r -- '^' "$option"
                case '*'
                    echo $line
            end
        end
    end
    complete -c \(program) -f -a '(__\(program)_complete)'

    """
}
