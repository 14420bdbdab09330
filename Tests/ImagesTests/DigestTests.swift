// SPDX-License-Identifier: Apache-2.0
import Linux
import Testing

@testable import Images

@Suite struct DigestTests {
    /// FIPS 180-4 examples and the lengths around the padding's edges, checked against coreutils.
    @Test(arguments: [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (3, "9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0"),
        (55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"),
        (56, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"),
        (63, "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34"),
        (64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"),
        (119, "31eba51c313a5c08226adf18d4a359cfdfd8d2e816b13f4af952f7ea6584dcfb"),
        (1000, "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3"),
    ])
    func repeatedLetter(count: Int, digest: String) {
        #expect(SHA256.hex([UInt8](repeating: UInt8(ascii: "a"), count: count)) == digest)
    }

    @Test func pieces() {
        var hash = SHA256()
        for piece in ["ab", "", "c"] { hash.update(Array(piece.utf8)) }
        #expect(
            hash.finish() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    }

    /// By libcrypto and by our own code it is the same, whatever the length.
    @Test(arguments: [0, 3, 1 << 20, 3 << 20 + 17]) func ofFile(count: Int) throws {
        let path = "/tmp/martlet-digest.\(Clock.monotonic())"
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 >> 3) }
        try Files.write(path, bytes)
        let digest = try SHA256.file(path)
        try Files.remove(path)
        #expect(digest == SHA256.hex(bytes))
        #expect(throws: SystemError.self) { try SHA256.file(path) }
    }

    @Test(arguments: [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("+/8A", "\u{1}")])
    func base64(text: String, plain: String) {
        var text = text
        let decoded = text.withUTF8 { base64Decoded($0) }
        if plain == "\u{1}" {
            #expect(decoded == [0xfb, 0xff, 0x00])
        } else {
            #expect(decoded == Array(plain.utf8))
        }
    }
}
