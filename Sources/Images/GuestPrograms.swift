// SPDX-License-Identifier: Apache-2.0

/// What Martlet itself puts into images: programs and configuration, carried in the binary.
package enum GuestPrograms {
    /// The `/init` of the initramfs.
    package static let initProgram: [UInt8] = bytes("init") ?? []

    /// The content of one file of the folder `guest/`; nil when there is none.
    static func bytes(_ path: String) -> [UInt8]? {
        GuestFiles.all.first { $0.path == path }.map(decode)
    }

    /// The files below a folder of `guest/`, by their path in it.
    static func files(in folder: String) -> [LayerRecipe.File] {
        GuestFiles.all.compactMap { file in
            guard file.path.hasPrefix(folder + "/") else { return nil }
            return LayerRecipe.File(
                path: String(file.path.dropFirst(folder.count)), mode: file.mode,
                content: decode(file))
        }
    }

    private static func decode(_ file: GuestFiles.File) -> [UInt8] {
        file.base64.withUTF8Buffer { base64Decoded($0) }
    }
}

/// Decodes base64 of our own making: no line breaks, padding only at the end.
func base64Decoded(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(text.count / 4 * 3)
    var bits: UInt32 = 0
    var count = 0
    for character in text {
        let value: UInt8
        switch character {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = character - UInt8(ascii: "A")
        case UInt8(ascii: "a")...UInt8(ascii: "z"): value = character - UInt8(ascii: "a") + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): value = character - UInt8(ascii: "0") + 52
        case UInt8(ascii: "+"): value = 62
        case UInt8(ascii: "/"): value = 63
        default: continue
        }
        bits = bits << 6 | UInt32(value)
        count += 6
        if count >= 8 {
            count -= 8
            result.append(UInt8(truncatingIfNeeded: bits >> UInt32(count)))
        }
    }
    return result
}
