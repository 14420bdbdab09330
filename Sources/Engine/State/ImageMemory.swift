// SPDX-License-Identifier: Apache-2.0
import Linux

/// What is remembered of a VM's images between runs: `image.json`.
package struct ImageMemory: Codable, Equatable, Sendable {
    static let version = 1
    package var version = ImageMemory.version
    /// The digest that the VM stays on until its next upgrade, whatever is declared.
    package var pinned: String?
    /// Digests that the VM was not healthy with, and why.
    package var failed: [String: String] = [:]

    package init() {}
}

extension VMLayout {
    var imageMemory: String { path + "/image.json" }
}

extension Store {
    /// What is remembered of a VM's images; nothing when there is no file.
    package func imageMemory(_ name: String) throws(StoreError) -> ImageMemory {
        let path = layout.vm(name).imageMemory
        return try RecordFile.read(ImageMemory.self, from: path, newest: ImageMemory.version)
            ?? ImageMemory()
    }

    /// Writes what is to be remembered; the change lock is held.
    func remember(_ memory: ImageMemory, of name: String) throws {
        let path = layout.vm(name).imageMemory
        if memory == ImageMemory() { return try Files.remove(path) }
        try RecordFile.write(memory, to: path)
    }

    /// Changes what is remembered; the change lock is held.
    ///
    /// A file that cannot be read is moved to the quarantine: it holds nothing that a VM needs.
    func changeImageMemory(_ name: String, _ change: (inout ImageMemory) -> Void) throws {
        var memory = ImageMemory()
        do {
            memory = try imageMemory(name)
        } catch .unreadable {
            _ = try quarantine(layout.vm(name).imageMemory)
        }
        let before = memory
        change(&memory)
        if memory != before { try remember(memory, of: name) }
    }
}
