// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

@Suite struct JSONTests {
    @Test(arguments: [
        "null", "true", "-1", "9223372036854775807", "[]", "{}", "[1,[2,{}]]",
        #"{"b":1,"a":{"c":null}}"#, #""a\"b\\c\n\u0001é😀""#, "1.5", "[1e-07]",
    ])
    func roundTrip(text: String) throws {
        #expect(try JSONValue(parsing: text).text() == text)
        let pretty = try JSONValue(parsing: text).text(pretty: true)
        #expect(try JSONValue(parsing: pretty).text() == text)
    }

    @Test func pretty() {
        let value: JSONValue = ["name": "web", "ports": [1, 2], "none": [], "deep": ["x": nil]]
        #expect(
            value.text(pretty: true) == """
                {
                  "name": "web",
                  "ports": [
                    1,
                    2
                  ],
                  "none": [],
                  "deep": {
                    "x": null
                  }
                }
                """)
    }

    @Test func escapes() throws {
        #expect(try JSONValue(parsing: #""\ud83d\ude00\/\u00e9""#) == .string("😀/é"))
        #expect(try JSONValue(parsing: "18446744073709551615").number == 0x1p64)
    }

    @Test(arguments: [
        "", " ", "nul", "[1,]", "{\"a\":}", "{a:1}", "01", "1.", "-", "+1", "1 2", "\"\n\"",
        "\"\\x\"",
        "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"abc", "[1", "{\"a\":1", "1e999", "\"\\u+123\"",
    ])
    func wrong(text: String) {
        #expect(throws: JSONError.self) { try JSONValue(parsing: text) }
    }

    @Test func deepNestingIsRefused() {
        let text = String(repeating: "[", count: 100_000)
        #expect(throws: JSONError(message: "nested too deeply", offset: 128)) {
            try JSONValue(parsing: text)
        }
    }

    @Test func brokenText() {
        #expect(throws: JSONError.self) { try JSONValue(parsing: [0x22, 0xFF, 0x22]) }
    }
}
