// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Testing

@Suite struct LogTests {
    /// What a log of 1000 bytes has after these lines.
    private func kept(_ flags: Int32, _ lines: [String]) throws -> String {
        let path = "/tmp/martlet-log-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        defer { unlink(path) }
        let file = try Descriptor.open(path, flags | O_CREAT | O_APPEND, mode: 0o600)
        let log = Log(descriptor: file.raw, journal: false, limit: 1000)
        for line in lines {
            log.info(line)
            if flags == O_RDWR { #expect(try Files.status(path).size <= 1000) }
        }
        return try Files.readText(path)
    }

    private let many = (0..<1000).map { "line \($0)" }

    @Test func aFileKeepsItsLastLines() throws {
        let lines = try kept(O_RDWR, many).split(separator: "\n")
        #expect(lines.first == "(what came before was dropped)")
        #expect(lines.last == "line 999")
        // Whole lines, and all in a row.
        let numbers = lines.dropFirst().compactMap { Int($0.dropFirst(5)) }
        #expect(numbers == Array((1000 - numbers.count)..<1000) && numbers.count > 20)
    }

    @Test func aLineLongerThanAllIsGoneAsAWhole() throws {
        let long = String(repeating: "x", count: 5000)
        #expect(try kept(O_RDWR, [long]) == "(what came before was dropped)\n")
    }

    /// Somebody redirected it, and nothing of his is thrown away.
    @Test func aFileOfSomebodyElseIsLeftAlone() throws {
        #expect(try kept(O_WRONLY, many) == many.map { $0 + "\n" }.joined())
    }
}
