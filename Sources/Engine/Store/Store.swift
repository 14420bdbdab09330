// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// The records below ROOT.
///
/// Everything here is read again when it is needed: the disk is the truth.
package struct Store: Sendable {
    package let layout: Layout
    /// How many generations of a VM are kept beside the newest.
    static let keptGenerations = 10

    package init(layout: Layout) { self.layout = layout }

    /// The names of the VM folders, and what else lies there and is left alone.
    package func names() throws(StoreError) -> (vms: [String], foreign: [String]) {
        let entries = try stored { () throws(SystemError) in try Files.list(layout.vms) }
        var vms: [String] = []
        var foreign: [String] = []
        for name in entries {
            if isVMName(name), Files.isFolder("\(layout.vms)/\(name)", followLinks: false) {
                vms.append(name)
            } else {
                foreign.append("\(layout.vms)/\(name)")
            }
        }
        return (vms, foreign)
    }

    func record(_ name: String) throws(StoreError) -> VMRecord? {
        let path = layout.vm(name).record
        guard let record = try RecordFile.read(VMRecord.self, from: path, newest: VMRecord.version)
        else { return nil }
        guard record.name == name else {
            throw .unreadable(path: path, reason: "it is the record of '\(record.name)'")
        }
        return record
    }

    /// The fleet that a VM belongs to; nil for a throw-away one, and for none.
    package func fleet(of name: String) throws(StoreError) -> String? {
        try record(name)?.fleet
    }

    /// The number of the generation that the next start uses; nil before the first.
    func currentNumber(_ name: String) throws(StoreError) -> Int? {
        let link = layout.vm(name).current
        do {
            let target = try Files.readLink(link)
            guard target.hasSuffix(".json"), let number = Int(target.dropLast(5)) else {
                throw StoreError.unreadable(path: link, reason: "it points to '\(target)'")
            }
            return number
        } catch let error as SystemError {
            if error.isMissing { return nil }
            throw .unreadable(path: link, reason: error.reason)
        } catch let error as StoreError {
            throw error
        } catch {
            throw .unreadable(path: link, reason: "\(error)")
        }
    }

    package func generation(_ name: String, _ number: Int) throws(StoreError) -> GenerationRecord? {
        var record = try RecordFile.read(
            GenerationRecord.self, from: layout.vm(name).generation(number),
            newest: GenerationRecord.version)
        // A VM is recorded as its entry in a fleet file reads, where the name is the key.
        record?.vm.name = name
        return record
    }

    package func current(_ name: String) throws(StoreError) -> GenerationRecord? {
        guard let number = try currentNumber(name) else { return nil }
        guard let generation = try generation(name, number) else {
            throw .unreadable(
                path: layout.vm(name).generation(number), reason: "it is missing")
        }
        return generation
    }

    /// All generations of a VM by number, oldest first.
    package func generations(_ name: String) throws(StoreError) -> [Int] {
        let folder = layout.vm(name).generations
        return try stored { () throws(SystemError) in try Files.list(folder) }
            .compactMap { $0.hasSuffix(".json") ? Int($0.dropLast(5)) : nil }.sorted()
    }

    /// Writes the next generation and makes it the current one.
    func add(_ vm: VM, imageDigest: String) throws -> GenerationRecord {
        let files = layout.vm(vm.name)
        try Files.makeFolder(files.generations)
        let existing = try generations(vm.name)
        // What ran until now stays, however old: it is what an upgrade goes back to.
        let needed = [try currentNumber(vm.name), try upgradeRecord(vm.name)?.from]
        let record = GenerationRecord(
            number: try nextNumber(vm.name), appliedAt: Clock.now(), imageDigest: imageDigest,
            vm: vm)
        try RecordFile.write(record, to: files.generation(record.number))
        Checkpoint.pass()
        try makeCurrent(vm.name, record.number)
        for number in existing.dropLast(Store.keptGenerations) where !needed.contains(number) {
            try Files.remove(files.generation(number))
        }
        return record
    }

    /// The number that `add` gives next.
    func nextNumber(_ name: String) throws(StoreError) -> Int {
        (try generations(name).last ?? 0) + 1
    }

    /// Makes a generation that is there the one that the next start uses.
    func makeCurrent(_ name: String, _ number: Int) throws(SystemError) {
        try Files.link("\(number).json", at: layout.vm(name).current)
    }

    /// Moves what cannot be read out of the way, never deleting it; returns where it is now.
    func quarantine(_ path: String) throws -> String {
        try Files.makeFolder(layout.quarantine, mode: 0o700)
        let flat = path.dropFirst(layout.root.count + 1).map { $0 == "/" ? "-" : $0 }
        let target = "\(layout.quarantine)/\(Clock.iso8601(Clock.now()))-\(String(flat))"
        try Files.rename(path, target)
        return target
    }
}

/// Tells whether a folder below `vms` can be one of ours.
package func isVMName(_ name: String) -> Bool {
    !name.isEmpty && name.utf8.count <= 63
        && name.utf8.allSatisfy { $0 == 45 || (48...57).contains($0) || (97...122).contains($0) }
}
