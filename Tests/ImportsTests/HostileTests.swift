// SPDX-License-Identifier: Apache-2.0
import Fleets
import Testing

@testable import Imports

@Suite struct HostileXMLTests {
    private func problem(of text: String) -> ImportError? {
        do {
            _ = try LibvirtDomain.read(Array(text.utf8))
            return nil
        } catch {
            return error
        }
    }

    @Test(arguments: [
        "", "   ", "vms: { hello: {} }", "<domain", "<domain></dom>", "<domain/><domain/>",
        "\u{0}\u{1}\u{2}", "<domain><name>a</name>",
        "<?xml version='1.0' encoding='none'?><domain/>",
    ])
    func garbageIsRefusedWithItsPlace(_ text: String) throws {
        let found = try #require(problem(of: text))
        guard case .malformed(let message) = found else {
            Issue.record("\(found)")
            return
        }
        #expect(message.hasPrefix("line "))
    }

    @Test(arguments: [
        // A laugh for each power of ten, and none of them is laughed.
        """
        <!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
        <!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]>
        <domain><name>&d;</name></domain>
        """,
        "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><name>&x;</name></domain>",
        "<!DOCTYPE d SYSTEM 'http://127.0.0.1:1/x.dtd'><domain><name>a</name></domain>",
        "<!DOCTYPE d [<!ENTITY % p SYSTEM 'file:///etc/passwd'>%p;]><domain/>",
    ])
    func aDocumentTypeIsRefused(_ text: String) throws {
        #expect("\(try #require(problem(of: text)))".contains("document type"))
    }

    @Test func anUnknownEntityIsNoText() {
        #expect(problem(of: "<domain><name>&x;</name></domain>") != nil)
    }

    @Test func depthCountAndSizeHaveBounds() throws {
        let deep = String(repeating: "<a>", count: 100_000)
        #expect("\(try #require(problem(of: deep)))".contains("nested too deeply"))
        let many = "<domain>" + String(repeating: "<a/>", count: 60_000) + "</domain>"
        #expect("\(try #require(problem(of: many)))".contains("too many elements"))
        let large = "<domain><name>" + String(repeating: "x", count: 5 << 20) + "</name></domain>"
        #expect("\(try #require(problem(of: large)))".contains("larger than 4 MiB"))
    }

    @Test func whatIsNoMachineIsRefused() throws {
        #expect(
            problem(of: "<network><name>a</name></network>")
                == .malformed("its root is <network>, and that of a domain is <domain>"))
        #expect(problem(of: "<domain type='kvm'/>") == .malformed("the domain has no <name>"))
        let container = try #require(problem(of: "<domain type='lxc'><name>a</name></domain>"))
        #expect("\(container)".contains("container"))
    }

    /// As many mistakes as there can be take one turn each and no more.
    @Test func manyMistakesAreAllTakenOut() throws {
        let shares = (0..<300).map {
            "<filesystem><source dir='/etc'/><target dir='t\($0)'/></filesystem>"
        }.joined()
        let xml = "<domain><name>a</name><devices>\(shares)</devices></domain>"
        let imported = try LibvirtDomain.read(Array(xml.utf8))
        #expect(imported.entry["shares"] == nil)
        #expect(imported.read().fleet != nil)
        #expect(imported.notes.count { $0.why.contains("share a directory of its own") } == 300)
    }
}

@Suite struct ShellScriptTests {
    private func words(_ script: String) throws -> [[String]] {
        try ShellScript(Array(script.utf8)).commands.map { $0.map(\.text) }
    }

    @Test(arguments: [
        ("a b\tc", [["a", "b", "c"]]),
        ("a; b & c | d && e\n(f)", [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]),
        ("a 'b c' \"d e\" f\\ g", [["a", "b c", "d e", "f g"]]),
        (#"a"b"'c'd '' """#, [["abcd", "", ""]]),
        (#"'it'\''s' "a\"b\\c\d\$e""#, [["it's", #"a"b\c\d$e"#]]),
        ("a \\\n  b\\\nc", [["a", "bc"]]),
        ("a # b 'c\nd#e", [["a"], ["d#e"]]),
        ("a >b 2>&1 c <d 3<>e f", [["a", "c", "f"]]),
        ("exec 3<>/dev/tap$(< /sys/x/ifindex) 2>log; b", [["exec"], ["b"]]),
        ("cat <<'E' >x\nexec '\nE\nb", [["cat"], ["b"]]),
        ("cat <<-E\n\tc\n\tE\nb", [["cat"], ["b"]]),
        ("cat <<< word b", [["cat", "b"]]),
        ("ü 'ß'", [["ü", "ß"]]),
        ("a $ b$", [["a", "$", "b$"]]),
        ("", []),
    ])
    func wordsAreThoseOfAShell(_ script: String, _ expected: [[String]]) throws {
        #expect(try words(script) == expected)
    }

    @Test(arguments: [
        "$(touch x)", "`touch x`", "${a:-b}", "$a", "\"$(echo \")\" ')' )\"", "a$1", "$'\\n'", "~",
        "*.img",
        "\"a`b`c\"", "$((1 + (2)))", "$(a $(b) ${c})",
    ])
    func whatAShellWouldComputeIsMarked(_ word: String) throws {
        let commands = try ShellScript(Array("x \(word) y".utf8)).commands
        #expect(commands.count == 1)
        #expect(commands.first?.count == 3)
        #expect(commands.first?[1].isComputed == true)
        #expect(commands.first?[2] == ShellWord(text: "y"))
    }

    @Test(arguments: ["a 'b", "a \"b", "$(a", "${a", "`a", "\"$(", "cat <<E\na", "$'a"])
    func whatDoesNotEndIsRefused(_ script: String) {
        #expect(throws: ImportError.self) { try ShellScript(Array(script.utf8)) }
    }

    /// Any bytes end in words or in an error, and never in a crash.
    @Test func anyBytesAreHandled() {
        var state: UInt64 = 7
        let alphabet = Array("a '\"\\$`(){}<>|&;#\n\t-=~0".utf8) + [0xC3, 0xFF]
        for _ in 0..<3_000 {
            let bytes = (0..<24).map { _ -> UInt8 in
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return alphabet[Int(state >> 33) % alphabet.count]
            }
            _ = try? ShellScript(bytes)
        }
        #expect(throws: ImportError.self) { try ShellScript([0]) }
    }
}

@Suite struct RunnerRefusalTests {
    private func problem(of script: String) -> ImportError? {
        do {
            _ = try MicrovmRunner.read(.init(path: "microvm-run", script: Array(script.utf8)))
            return nil
        } catch {
            return error
        }
    }

    @Test func whatRunsNoHypervisorIsRefused() throws {
        let scripts = ["", "exec bash", "qemu-system-x86_64 -m 512", "exec -a x", "exec -a"]
        for script in scripts {
            #expect("\(try #require(problem(of: script)))".contains("is this microvm-run?"))
        }
        #expect("\(try #require(problem(of: "exec vfkit --cpus 1")))".contains("macOS"))
    }

    @Test func aConfigurationThatIsNotThereIsMissing() {
        #expect(
            problem(of: "exec firecracker --config-file /nix/store/x.json")
                == .missing("the configuration of firecracker, /nix/store/x.json, cannot be read"))
    }

    @Test func aBrokenConfigurationIsRefused() throws {
        let host = HostView(file: { _ in Array("{".utf8) })
        #expect(throws: ImportError.self) {
            try MicrovmRunner.read(
                .init(path: "x", script: Array("exec firecracker --config-file /x".utf8)),
                host: host)
        }
    }
}

@Suite struct TextTests {
    /// Whatever a text holds, the reader of fleet files gets it back as that text.
    @Test(arguments: [
        "", "a", "true", "No", "12", "1e5", "0x1F", "10.1.0.0/24", "512MiB", "02:00:00:00:00:01",
        "2001-01-01", "a: b", "a #b", "- a", "[a", "{a}", "*a", "&a", "!a", "|", ">", "%a", "@a",
        "`a",
        "'a'", "\"a\"", "a\\b", "a\nb", "a\tb", "\u{85}\u{2028}\u{FEFF}\u{7}", "ü€😀", " a ", "~",
        "null",
        "a,b", "?", "-", "=",
    ])
    func aTextComesBack(_ text: String) throws {
        let yaml = yamlText(["vms": ["a": ["timezone": .string(text)]]])
        let file = FleetFile.parse(yaml)
        if let fleet = file.fleet {
            #expect(fleet.vms.first?.timezone == text)
        } else {
            // It is no time zone, but it was read as that text.
            #expect(file.errors.map(\.path) == ["vms.a.timezone"])
            #expect(
                file.errors.first?.message.hasSuffix("found '\(text)'") == true, "\(file.errors)")
        }
    }

    @Test(arguments: ["a\nvms: {}", "a\r\nb", "\u{85}b", "\u{2028}b", "\u{0}"])
    func aCommentStaysAComment(_ text: String) {
        let lines = yamlComment(text).split(whereSeparator: \.isNewline)
        #expect(lines.allSatisfy { $0.hasPrefix("#") })
        let letters = String(repeating: "word ", count: 60)
        #expect(yamlComment(letters).split(separator: "\n").allSatisfy { $0.count <= 100 })
    }

    @Test(arguments: [
        ("web", "web"), ("Web Server", "web-server"), ("--a__b--", "a-b"), ("ünï", "n"), ("", "vm"),
        ("日本", "vm"), (String(repeating: "ab-", count: 20), "ab-ab-ab-ab-ab-ab-ab-ab-ab-ab-ab"),
    ])
    func namesAreMadeValid(_ given: String, _ expected: String) {
        #expect(fleetName(given, else: "vm") == expected)
    }

    @Test func takenNamesGetANumber() {
        #expect(free("a", among: ["a", "a-2"]) == "a-3")
        let long = String(repeating: "x", count: 20)
        #expect(free(long, limit: 20, among: [long]).utf8.count == 20)
    }

    @Test func aNetworksSubnetIsAlwaysTheSame() {
        #expect(subnet(for: "default") == subnet(for: "default"))
        for name in ["default", "microvm", "a", ""] { #expect(CIDR(subnet(for: name)) != nil) }
    }

    @Test(
        arguments: [
            ("512", 512 << 20), ("512M", 512 << 20), ("1G", 1 << 30), ("2g", 2 << 30),
            ("1GiB", 1 << 30),
            ("64K", 64 << 10),
        ] as [(String, UInt64)])
    func sizesOfHypervisorsAreRead(_ text: String, _ bytes: UInt64) {
        #expect(hypervisorSize(text) == bytes)
    }

    @Test(arguments: ["", "M", "-1", "1X", "99999999999999999999", "18446744073709551615G"])
    func whatIsNoSizeIsNone(_ text: String) { #expect(hypervisorSize(text) == nil) }
}
