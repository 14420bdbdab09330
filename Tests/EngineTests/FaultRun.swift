// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Supervisor
import Synchronization
import Testing

/// One VM that things are done to while faults happen, and what must hold afterwards.
final class FaultRun {
    static let base: Int64 = 100 << 20
    static let images = [
        "app: {from: core, packages: [one]}", "app: {from: core, packages: [one, two]}",
    ]

    let world: World
    let disk: FaultDisk
    /// Whether the VM has a share, by the virtiofsd of this host; such a VM cannot be suspended.
    let hasShare: Bool
    var dice: Dice
    var model = SlotModel()
    var snapshots: [String: SlotModel.Content] = [:]
    var backups: [String: SlotModel.Content] = [:]
    /// What was done, for whoever reads a failure.
    private(set) var story: [String] = []
    /// What the step of this round brings back.
    private var restored: SlotModel.Content?
    private var memory = 256
    private var size = 256
    private var processors = 1
    private var image = 0

    init(seed: UInt64) async throws {
        var dice = Dice(state: seed)
        let kind = FaultDisk.kinds[dice.roll(0...FaultDisk.kinds.count - 1)]
        var disk: FaultDisk?
        // Asked how large a file system is, the guest says "999999 65536".
        let behaviour = "qemu boot=0.02 agent freeze out=OTk5OTk5IDY1NTM2"
        world = try await World(behaviour, below: "/fs", image: false) {
            disk = try await FaultDisk(kind, in: $0)
        }
        self.disk = try #require(disk)
        hasShare = dice.roll(0...3) == 0
        self.dice = dice
        story = ["seed \(seed) on \(kind.rawValue)\(hasShare ? ", with a share" : "")"]
        let daemon = FileDaemon.places.first(where: Files.exists)
        if hasShare { try world.serveShares(command: "exec \(try #require(daemon)) \"$@\"") }
        for (text, version) in zip(Self.images, ["1", "2"]) {
            try await world.makeImage("app", text, packages: ["one": version])
        }
        try declare()
        try await world.must("up")
        for slot in 0..<SlotModel.slots { try await write(UInt8(slot + 1), to: slot) }
        try await guest.flush()
        model.flushed()
        try await world.must("snapshot", "create", "web")
        try await world.must("backup", "create", "web")
        try await compare(model.exact, isLasting: false)
        try await write(9, to: 0)
    }

    /// Ends everything; to be called in any case.
    func end() async throws {
        try await FaultStriker(layout: world.layout, disk: disk).endAll()
    }

    var guest: BlockGuest { world.guest("web") }
    private var files: VMLayout { world.layout.vm("web") }
    var hint: String { story.joined(separator: "\n  ") }

    private func declare() throws {
        let share = hasShare ? ", shares: [{source: ./shared, mount: /srv, create: {}}]" : ""
        try world.declare(
            "web: {image: app, memory: \(memory)MiB, disk: \(size)MiB\(share)}",
            images: Self.images[image])
    }

    private func write(_ value: UInt8, to slot: Int) async throws {
        model.writing(value, to: slot)
        try await guest.write(value, at: Self.base + Int64(slot) * 65536)
        model.wrote(value, to: slot)
    }

    // MARK: A round

    /// Does one thing while another happens, and sees to it that all is well afterwards.
    func round() async throws {
        var step = FaultStep.allCases[dice.roll(0...FaultStep.allCases.count - 1)]
        let isGuest = [.write, .flushedWrite, .discard].contains(step)
        let fault = Fault(&dice, inGuest: isGuest)
        var before = ["", "", "", "stop", "suspend"][dice.roll(0...4)]
        if hasShare, step == .suspend { step = .restart }
        if hasShare, before == "suspend" { before = "stop" }
        story.append("\(before.isEmpty ? "" : "\(before), then ")\(step), \(fault)")
        if !before.isEmpty {
            try await world.must(before, "web")
            model.flushed()
        }
        // What is made of a VM that died may lack what it had not flushed.
        let content = fault.isGentle && !fault.isPower ? model.exact : model.possible
        restored = nil
        let words = try await words(for: step)
        let striker = FaultStriker(layout: world.layout, disk: disk)
        let strike = Task { try await striker.strike(fault) }
        if isGuest {
            // Without a guest nothing is written, and one that is struck does not say so.
            try? await inGuest(step)
        } else if let words {
            let output = try await striker.program(world.program(words), fault).capture()
            striker.isOver.withLock { $0 = true }
            let mayFail =
                !fault.isNone || ["stop", "suspend"].contains(before) || step == .rollback
            #expect(
                mayFail || output.exit == .code(0),
                "\(hint)\n\(words): \(output.text)\(output.errorText)")
            story[story.count - 1] += " -> \(output.exit)"
            if output.exit == .code(0), [.stop, .restart, .suspend].contains(step), fault.isGentle {
                model.flushed()
            }
            if output.exit == .code(0), let restored { model.replaced(by: restored) }
        }
        let hasStruck = try await strike.value
        if !hasStruck, !fault.isNone { story[story.count - 1] += ", before that came" }
        try disk.empty()
        try await settle(before == "suspend" || step == .suspend, fault)
        try await compare(content, isLasting: fault.isPower && hasStruck)
    }

    /// The command line of a step; nil for what the guest does.
    private func words(for step: FaultStep) async throws -> [String]? {
        switch step {
        case .write, .flushedWrite, .discard: return nil
        case .up: return ["up"]
        case .change: memory = memory == 256 ? 320 : 256
        case .grow: size += 16
        case .resize:
            processors = 3 - processors
            return ["resize", "web", "--vcpu", String(processors)]
        case .upgrade:
            image = 1 - image
            try declare()
            return ["upgrade", "web"]
        case .rollback: return ["rollback", "web"]
        case .stop, .kill, .restart, .suspend: return [step.rawValue, "web"]
        case .snapshot: return ["snapshot", "create", "web"]
        case .restore:
            guard let (name, content) = pick(snapshots) else { return ["up"] }
            restoring(content)
            return ["snapshot", "restore", "web", name]
        case .remove:
            guard let (name, _) = pick(snapshots) else { return ["up"] }
            return ["snapshot", "remove", "web", name, "--yes"]
        case .backup: return ["backup", "create", "web"]
        case .restoreBackup:
            guard let (name, content) = pick(backups) else { return ["up"] }
            restoring(content)
            return ["backup", "restore", "web", name]
        case .prune: return ["backup", "prune", "web", "--yes"]
        }
        try declare()
        return ["up"]
    }

    private func restoring(_ content: SlotModel.Content) {
        restored = content
        model.replacing(by: content)
    }

    private func pick(_ all: [String: SlotModel.Content]) -> (String, SlotModel.Content)? {
        let names = all.keys.sorted()
        guard let name = names.randomElement(using: &dice), let content = all[name] else {
            return nil
        }
        return (name, content)
    }

    private func inGuest(_ step: FaultStep) async throws {
        for _ in 1...3 {
            let slot = dice.roll(0...SlotModel.slots - 1)
            if step == .discard {
                model.writing(0, to: slot)
                try await guest.discard(at: Self.base + Int64(slot) * 65536)
                model.wrote(0, to: slot)
            } else {
                try await write(UInt8(dice.roll(1...255)), to: slot)
            }
        }
        guard step == .flushedWrite else { return }
        try await guest.flush()
        model.flushed()
    }

    // MARK: What must hold

    /// One `up` makes everything as declared, whatever was done before.
    private func settle(_ wasSuspended: Bool, _ fault: Fault) async throws {
        try await world.until("it is settled\n\(hint)") {
            let state = try await world.state("web") ?? ""
            return !["starting", "stopping"].contains(state)
        }
        switch try await world.state("web") {
        case "suspended":
            let resume = try await world.martlet("resume", "web")
            if resume.exit != .code(0) {
                // Killed while it changed the disks' files, it cannot know that they are the same.
                #expect(!fault.isNone, "\(hint)\n\(resume.errorText)")
                try await world.must("start", "--discard-memory", "web")
            }
        case "paused": try await world.must("unpause", "web")
        default: break
        }
        let up = try await world.martlet("up")
        try #require(up.exit == .code(0), "\(hint)\n\(up.text)\(up.errorText)")
        let check = try await world.martlet("plan", "--check")
        #expect(check.exit == .code(0), "\(hint)\n\(check.text)\(check.errorText)")
        let state = try await world.state("web")
        try #require(state == "running", "\(hint)")
        // As a guest that mounts its disk: QEMU makes nothing last, at a stop either, of what one
        // before it has written, as long as it has written nothing itself.
        try await guest.write(1, at: Self.base - 65536)
        try await world.expectTruth(hint)
        try world.expectNothingLeftOver(hint)
    }

    /// The guest has what it was promised, and so have snapshots and backups.
    private func compare(_ before: SlotModel.Content, isLasting: Bool) async throws {
        var values: [UInt8?] = []
        for slot in 0..<SlotModel.slots { values.append(try await read(slot)) }
        let isRight = model.found(values, isLasting: isLasting)
        try #require(isRight, "\(hint)\n  there is \(values), not \(model.text)")
        let listed = try await rows("snapshot", "list", "web", "--json")
        for name in snapshots.keys where listed[name] == nil { snapshots[name] = nil }
        for name in listed.keys where snapshots[name] == nil { snapshots[name] = before }
        let archives = try await rows("backup", "list", "web", "--json")
        for name in backups.keys where archives[name] == nil { backups[name] = nil }
        for name in archives.keys where backups[name] == nil { backups[name] = before }
        // Each of them: what was whole before may not have lasted.
        for name in archives.keys.sorted() {
            let verify = try await world.martlet("backup", "verify", "web", name)
            #expect(verify.exit == .code(0), "\(hint)\n\(verify.text)\(verify.errorText)")
        }
    }

    private func read(_ slot: Int) async throws -> UInt8? {
        let offset = Self.base + Int64(slot) * 65536
        let dump = try await guest.io("data", "read -v \(offset) 1")
        // 06400000:  41  A
        let byte = dump.split(separator: " ").dropFirst().first.flatMap { UInt8($0, radix: 16) }
        guard let byte, try await guest.holds(byte, at: offset) else { return nil }
        return byte
    }

    private func rows(_ words: String...) async throws -> [String: JSONValue] {
        let output = try await world.program(words).capture()
        try #require(output.exit == .code(0), "\(hint)\n\(output.errorText)")
        return try JSONValue(parsing: output.standardOutput).elements.reduce(into: [:]) {
            $0[$1["name"]?.string ?? ""] = $1
        }
    }

    /// Every snapshot and every backup that is listed brings back what was there then, nothing else is
    /// in the disk's file, and that is whole.
    func closing() async throws {
        story.append("at the end")
        for (verb, all) in [("snapshot", snapshots), ("backup", backups)] {
            for (name, content) in all.sorted(by: { $0.key < $1.key }) {
                let before = model.exact
                try await world.must(verb, "restore", "web", name)
                model.replaced(by: content)
                try await compare(before, isLasting: false)
            }
        }
        let listed = try await rows("snapshot", "list", "web", "--json").filter {
            $0.value["disks"]?.elements.contains { $0["mechanism"] == "internal" } == true
        }
        try await world.must("stop", "web")
        let damage = try await world.damage(of: files.dataVolume)
        #expect(damage == nil, "\(hint)\n\(damage ?? "")")
        let about = ["info", "--output=json", files.dataVolume]
        let info = try JSONValue(
            parsing: try await Program("/usr/bin/qemu-img", about).capture().standardOutput)
        let tags = (info["snapshots"]?.elements ?? []).compactMap { $0["name"]?.string }
        #expect(tags.sorted() == listed.keys.map { "martlet-\($0)" }.sorted(), "\(hint)")
        let bitmaps = info["format-specific"]?["data"]?["bitmaps"]?.elements ?? []
        let lineage = (try? Files.readText(files.path + "/backups.json")) ?? ""
        for bitmap in bitmaps.compactMap({ $0["name"]?.string }) {
            let id = bitmap.replacing("martlet-", with: "")
            #expect(lineage.contains(id), "\(hint)\nthe bitmap \(bitmap) is of nothing")
        }
    }
}
