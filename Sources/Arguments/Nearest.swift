// SPDX-License-Identifier: Apache-2.0

/// The word that was probably meant: one that begins with what was typed, or at most two slips away.
package func nearest(_ typed: String, among known: [String]) -> String? {
    let close = known.map { (word: $0, slips: slips(Array(typed), Array($0))) }
        .filter { $0.slips <= 2 && $0.slips < min(typed.count, $0.word.count) }
        .min { $0.slips < $1.slips }
    return close?.word ?? known.first { typed.count > 1 && $0.hasPrefix(typed) }
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
private func slips(_ a: [Character], _ b: [Character]) -> Int {
    var before: [Int] = []
    var last = Array(0...b.count)
    for i in a.indices {
        var row = [i + 1]
        for j in b.indices {
            var best = min(last[j + 1] + 1, row[j] + 1, last[j] + (a[i] == b[j] ? 0 : 1))
            if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] {
                best = min(best, before[j - 1] + 1)
            }
            row.append(best)
        }
        (before, last) = (last, row)
    }
    return last[b.count]
}
