// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Testing

struct FilesTests {
    private func withFolder(_ body: (String) throws -> Void) throws {
        var template = Array("/tmp/martlet-files-XXXXXX".utf8CString)
        let folder = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer { try? Files.remove(folder) }
        try body(folder)
    }

    @Test func removingGoesDownButNeverAlongALink() throws {
        try withFolder { folder in
            try Files.makeFolder("\(folder)/kept")
            try Files.write("\(folder)/kept/file", "kept")
            try Files.makeFolder("\(folder)/gone/a/b/c")
            try Files.write("\(folder)/gone/a/b/c/file", "gone")
            try Files.write("\(folder)/gone/.hidden", "gone")
            try Files.link("\(folder)/kept", at: "\(folder)/gone/a/link")
            try Files.link("\(folder)/kept", at: "\(folder)/link")
            try Files.remove("\(folder)/gone")
            try Files.remove("\(folder)/link")
            try Files.remove("\(folder)/missing")
            #expect(try Files.list(folder) == ["kept"])
            #expect(try Files.readText("\(folder)/kept/file") == "kept")
        }
    }

    @Test func whatCannotBeRemovedIsNamed() throws {
        // The kernel makes it, and nobody can take it away.
        let error = #expect(throws: SystemError.self) { try Files.remove("/proc/self/status") }
        #expect(error?.description.contains("/proc/self/status") == true, "\(error as Any)")
    }

    @Test func onlyWhatTheDeadWereWritingIsRemoved() throws {
        try withFolder { folder in
            // No process has a number beyond the kernel's largest.
            let dead = ["a.json.new.4194999", "b.new.4194999.0f1e"]
            let kept = ["a.json", "c.new.\(getpid())", "d.new", "e.new.x"]
            for name in dead + kept { try Files.write("\(folder)/\(name)", "") }
            try Files.removeAbandoned(in: folder)
            #expect(try Files.list(folder).sorted() == kept)
            try Files.removeAbandoned(in: "\(folder)/missing")
        }
    }

    @Test func nothingIsRenamedOverWhatIsThere() throws {
        try withFolder { folder in
            for name in ["one", "two"] { try Files.write("\(folder)/\(name)", name) }
            let error = #expect(throws: SystemError.self) {
                try Files.renameNew("\(folder)/one", "\(folder)/two")
            }
            #expect(error?.isExisting == true)
            try Files.renameNew("\(folder)/one", "\(folder)/three")
            #expect(try Files.list(folder) == ["three", "two"])
        }
    }
}
