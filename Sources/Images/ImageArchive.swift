// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// One file in a tar archive: its name and its size, the 512 bytes before its content.
///
/// An exported image holds regular files of short names and nothing else. tar(1) would also make
/// links, devices and sparse files of any length, and would have to be held back from each of them.
struct TarHeader: Equatable {
    static let length = 512

    let name: String
    let size: Int64

    /// Nil where the bytes are not the header of a regular file.
    init?(_ bytes: [UInt8]) {
        guard bytes.count == TarHeader.length else { return nil }
        func text(_ range: Range<Int>) -> String {
            String(decoding: bytes[range].prefix { $0 != 0 }, as: UTF8.self)
        }
        func number(_ range: Range<Int>) -> Int64? {
            let digits = text(range).filter { $0 != " " }
            return digits.hasPrefix("-") ? nil : Int64(digits, radix: 8)
        }
        // The checksum counts its own eight bytes as spaces.
        let checksum = 148..<156
        let sum = bytes.indices.reduce(0) {
            $0 + (checksum.contains($1) ? 32 : Int64(bytes[$1]))
        }
        // Sizes that do not fit into eleven octal digits: a set bit, then a big-endian number.
        let isBinary = bytes[124] == 0x80
        let size =
            isBinary
            ? bytes[128..<136].reduce(UInt64(0)) { $0 << 8 | UInt64($1) } : nil
        guard number(checksum) == sum, bytes[156] == 48 || bytes[156] == 0,
            // A part of a path that does not fit into the name.
            bytes[345] == 0 || !text(257..<262).hasPrefix("ustar") || text(257..<265) == "ustar  ",
            let size = isBinary ? size.flatMap(Int64.init(exactly:)) : number(124..<136)
        else { return nil }
        name = text(0..<100)
        self.size = size
    }
}

/// Takes an exported image apart: a tar that may come from anywhere.
///
/// The manifest comes first and says what else there may be and how large it is, so that the first
/// surprise ends the reading, before it has cost more than the image would.
struct ImageArchive {
    /// The file, for messages.
    let path: String
    /// Delivers the unpacked bytes.
    let input: Int32

    /// Far more than any image has, and little enough to be read into memory.
    static let manifestLimit: Int64 = 16 << 20
    /// Of the parts whose size the manifest does not say.
    static let bootLimit: Int64 = 512 << 20
    private static let chunk = 1 << 16

    private func damaged(_ reason: String) -> ImageError {
        .damaged(path: path, reason: reason)
    }

    /// Writes the parts into a folder, each under its name, and returns what the manifest says.
    ///
    /// Blocks the thread. That every byte is as the manifest says is still to be checked.
    func unpack(into folder: String) throws -> ImageManifest {
        guard let header = try next(), header.name == "manifest.json",
            header.size <= ImageArchive.manifestLimit
        else { throw damaged("it is not an exported image") }
        let text = String(decoding: try read(header.size), as: UTF8.self)
        try skipPadding(header.size)
        guard let json = try? JSONValue(parsing: text) else {
            throw damaged("its manifest is not JSON")
        }
        let image = try ImageManifest(json, path: path)
        guard image.bytes <= (try Files.freeSpace(folder)) else {
            throw ImageError.noSpace(path: folder)
        }
        var awaited: [String: Int64?] = ["vmlinux": nil, "initramfs": nil]
        for layer in image.layers { awaited["\(layer.digest).erofs"] = layer.bytes }
        while let header = try next() {
            guard let size = awaited.removeValue(forKey: header.name) else {
                throw damaged("it holds '\(header.name)', which is no part of its image")
            }
            guard header.size == size ?? min(header.size, ImageArchive.bootLimit) else {
                throw damaged("'\(header.name)' has \(header.size) bytes")
            }
            try copy(header.size, to: "\(folder)/\(header.name)")
            try skipPadding(header.size)
        }
        if let missing = awaited.keys.sorted().first { throw damaged("'\(missing)' is missing") }
        try expectEnd()
        return image
    }

    /// The next file; nil at the end of the archive.
    private func next() throws -> TarHeader? {
        let bytes = try read(Int64(TarHeader.length))
        // The end is two blocks of zeros; tar fills up with more.
        if bytes.allSatisfy({ $0 == 0 }) { return nil }
        guard let header = TarHeader(bytes) else {
            throw damaged("it holds something else than files, or is no archive")
        }
        return header
    }

    private func copy(_ size: Int64, to path: String) throws {
        let file = try Descriptor.open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW)
        var left = size
        while left > 0 {
            let bytes = try read(min(left, Int64(ImageArchive.chunk)))
            try file.write(bytes)
            left -= Int64(bytes.count)
        }
    }

    /// Contents fill whole blocks.
    private func skipPadding(_ size: Int64) throws {
        let block = Int64(TarHeader.length)
        _ = try read((block - size % block) % block)
    }

    /// Reads what tar fills up with; more would be an archive behind the archive.
    private func expectEnd() throws {
        var left = 1 << 20
        while left > 0 {
            let bytes = try Linux.read(input, 65536)
            if bytes.isEmpty { return }
            guard bytes.allSatisfy({ $0 == 0 }) else { break }
            left -= bytes.count
        }
        throw damaged("something follows its end")
    }

    private func read(_ count: Int64) throws -> [UInt8] {
        var all: [UInt8] = []
        all.reserveCapacity(Int(count))
        while all.count < count {
            let bytes = try Linux.read(input, min(Int(count) - all.count, 65536))
            if bytes.isEmpty { throw damaged("it is cut off, or no exported image") }
            all += bytes
        }
        return all
    }
}
