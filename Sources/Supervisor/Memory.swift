// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// Gives back, whenever nothing happens, what the last thing that happened needed.
///
/// The Swift runtime reads most of the binary once, to find conformances, and the kernel maps 64
/// KiB around each page that is touched: 8 MiB that one supervisor per VM would hold on to for
/// ever. What is used again is mapped again from the page cache, in microseconds.
final class Memory {
    private let mappings: [Range<UInt>]
    private let pagemap: Descriptor
    private let pageSize: UInt
    private var entries: [UInt64]

    /// Looks up once which parts of our memory are files.
    init() throws(SystemError) {
        pageSize = UInt(getpagesize())
        pagemap = try Descriptor.open("/proc/self/pagemap", O_RDONLY)
        var found: [Range<UInt>] = []
        for line in try Files.readText("/proc/self/maps").split(separator: "\n") {
            // 55d0c6e6c000-55d0c7b4a000 r-xp 00000000 fe:00 16326732    /usr/bin/martlet
            let fields = line.split(separator: " ", maxSplits: 5)
            let ends = (fields.first ?? "").split(separator: "-").compactMap { UInt($0, radix: 16) }
            guard fields.count == 6, fields[5].contains("/"), ends.count == 2 else { continue }
            found.append(ends[0]..<ends[1])
        }
        // The program itself comes last: what still runs would only be mapped again.
        mappings = found.reversed()
        let longest = found.map { Int($0.upperBound - $0.lowerBound) }.max() ?? 0
        entries = [UInt64](repeating: 0, count: longest / Int(pageSize))
    }

    /// Unmaps every page that is still as it is in its file (`madvise`).
    ///
    /// A page of a private mapping that was written is anonymous by then, and stays; there is no
    /// other thread that could write one in between.
    func trim() {
        for mapping in mappings {
            let count = Int((mapping.upperBound - mapping.lowerBound) / pageSize)
            let offset = off_t(mapping.lowerBound / pageSize * 8)
            let got = pread(pagemap.raw, &entries, count * 8, offset)
            if got == count * 8 { trim(mapping.lowerBound, count) }
        }
    }

    private func trim(_ start: UInt, _ count: Int) {
        // Bit 63: present; bit 61: a page of the file itself, not our copy of it.
        let clean: UInt64 = 1 << 63 | 1 << 61
        var index = 0
        while index < count {
            let first = index
            while index < count, entries[index] & clean == clean { index += 1 }
            if index > first {
                let address = UnsafeMutableRawPointer(bitPattern: start + UInt(first) * pageSize)
                madvise(address, (index - first) * Int(pageSize), MADV_DONTNEED)
            }
            index += 1
        }
    }
}
