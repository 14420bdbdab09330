// SPDX-License-Identifier: Apache-2.0

/// A run of bytes of a disk; in JSON `[offset, length]`, for there may be very many.
package struct Extent: Sendable, Equatable, Codable {
    package let offset: Int64
    package let length: Int64
    package var end: Int64 { offset + length }

    package init(offset: Int64, length: Int64) {
        self.offset = offset
        self.length = length
    }

    package init(from decoder: any Decoder) throws {
        var pair = try decoder.unkeyedContainer()
        offset = try pair.decode(Int64.self)
        length = try pair.decode(Int64.self)
    }

    package func encode(to encoder: any Encoder) throws {
        var pair = encoder.unkeyedContainer()
        try pair.encode(offset)
        try pair.encode(length)
    }
}

/// What is known of a disk's content, in order of offset and without overlap.
package struct ExtentMap: Sendable, Equatable {
    /// Bytes that have to be read.
    package var data: [Extent] = []
    /// Bytes that are known to be zeros.
    package var zeros: [Extent] = []

    package init(data: [Extent] = [], zeros: [Extent] = []) {
        self.data = data
        self.zeros = zeros
    }

    package var bytes: Int64 { data.reduce(0) { $0 + $1.length } }
}

extension [Extent] {
    /// Adds a run behind all others; one that touches the last becomes part of it.
    package mutating func append(_ offset: Int64, _ length: Int64) {
        guard length > 0 else { return }
        if let last, last.end == offset {
            self[count - 1] = Extent(offset: last.offset, length: last.length + length)
        } else {
            append(Extent(offset: offset, length: length))
        }
    }

    /// The parts that lie in one of the others, too; both in order and without overlap.
    package func intersection(_ others: [Extent]) -> [Extent] {
        var result: [Extent] = []
        var index = 0
        for extent in self {
            while index < others.count, others[index].end <= extent.offset { index += 1 }
            var other = index
            while other < others.count, others[other].offset < extent.end {
                let start = Swift.max(extent.offset, others[other].offset)
                let end = Swift.min(extent.end, others[other].end)
                result.append(start, end - start)
                other += 1
            }
        }
        return result
    }

    /// Whether they are in order, apart from each other and inside a disk of `bytes`.
    package func isOrdered(within bytes: Int64) -> Bool {
        var last: Int64 = 0
        for extent in self {
            guard extent.length > 0, extent.offset >= last,
                extent.length <= bytes, extent.offset <= bytes - extent.length
            else { return false }
            last = extent.end
        }
        return true
    }
}
