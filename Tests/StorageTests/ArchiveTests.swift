// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Storage

@Suite(.timeLimit(.minutes(20))) struct ArchiveTests {
    private func chain(recipients: [String] = []) async throws -> Rig {
        let rig = try Rig()
        try await rig.makeDisk("data", "8M")
        try await rig.io("data", "write -P 1 0 64k", "write -P 2 1M 200k", "write -P 3 8126464 64k")
        try await rig.backUp(["data"], recipients: recipients)
        try await rig.io("data", "write -P 4 64k 64k", "write -z -u 1M 64k", "discard 0 64k")
        try await rig.backUp(["data"], recipients: recipients)
        return rig
    }

    @Test func aChainGivesBackTheDisk() async throws {
        let rig = try await chain()
        let first = try await rig.unpack("20260101-000001")
        #expect([first[0], first[65536], first[1 << 20], first[8_388_607]] == [1, 0, 2, 0])
        #expect(first[8_126_464] == 3 && first.count == 8 << 20)
        let second = try await rig.unpack()
        #expect([second[0], second[65536], second[1 << 20]] == [0, 4, 0])
        #expect(second[(1 << 20) + 65536] == 2 && second[8_126_464] == 3)
        let kinds = try await rig.target.list("web").map(\.kind)
        #expect(kinds == [.full, .incremental])
        #expect(try await rig.fault(withRecords: false) == nil)
        // Without records, the archives say the same of themselves.
        #expect(try await rig.target.list("web").map(\.kind) == kinds)
    }

    /// By hand, as docs/backups.md says.
    @Test func tarAndSHA256SumReadAFullBackup() async throws {
        let rig = try await chain()
        try await rig.shell(
            """
            mkdir out; cd out; zstd -dcq ../20260101-000001.tar.zst | tar -x
            sha256sum -c --quiet manifest.sha256; test "$(cat identity/uuid)" = u
            test $(stat -c %s disks/data.raw) = 8388608
            test $(($(stat -c %b disks/data.raw) * 512)) -lt 2000000
            zstd -lv ../20260101-000001.tar.zst | grep -q XXH64
            """)
        let bytes = try Files.read("\(rig.target.path)/web/out/disks/data.raw")
        #expect(try await rig.unpack("20260101-000001") == bytes)
    }

    @Test func aFlippedBitIsFoundWhereverItIs() async throws {
        let rig = try await chain()
        let good = try Files.read(rig.archive(try #require(rig.last)))
        for place in stride(from: 0, to: good.count, by: max(1, good.count / 25)) {
            for path in try Files.list("\(rig.target.path)/web") where path.hasSuffix(".zst") {
                let path = "\(rig.target.path)/web/\(path)"
                let whole = try Files.read(path)
                guard place < whole.count else { continue }
                try rig.damage(path) { $0[place] ^= 1 << UInt8(place % 8) }
                let fault = try await rig.fault(withRecords: false)
                #expect(fault?.contains("damaged") == true, "\(path) at \(place): \(fault ?? "-")")
                try Files.write(path, whole)
            }
        }
        #expect(try await rig.fault() == nil)
    }

    @Test func whatIsCutOffOrAddedIsFound() async throws {
        let rig = try await chain()
        let path = rig.archive(try #require(rig.last))
        let good = try Files.read(path)
        for count in [0, 1, 4, 100, good.count / 2, good.count - 5, good.count - 1] {
            try Files.write(path, good[..<count])
            #expect(try await rig.fault(withRecords: false) != nil, "\(count) of \(good.count)")
        }
        for tail in [[0], [1], [UInt8](repeating: 0, count: 5000), Array(good.suffix(700)), good] {
            try Files.write(path, good + tail)
            #expect(try await rig.fault(withRecords: false) != nil, "\(tail.count) more")
        }
        try Files.write(path, good)
        #expect(try await rig.fault(withRecords: false) == nil)
    }

    struct Forgery: Sendable, CustomTestStringConvertible {
        let testDescription: String
        /// Changes the members (headers and contents): backup.json, identity, disk, manifest, digest.
        let change: @Sendable (inout [[UInt8]]) -> Void
        var tail: [UInt8] = []
    }

    /// Archives that are well packed and wrong inside.
    @Test(arguments: [
        Forgery(testDescription: "no header") { $0.remove(at: 0) },
        Forgery(testDescription: "no identity") { $0.remove(at: 1) },
        Forgery(testDescription: "no disk") { $0.remove(at: 2) },
        Forgery(testDescription: "no manifest") { $0.remove(at: 3) },
        Forgery(testDescription: "no digest") { $0.remove(at: 4) },
        Forgery(testDescription: "nothing") { $0.removeAll() },
        Forgery(testDescription: "another order") { $0.swapAt(1, 2) },
        Forgery(testDescription: "a member twice") { $0.insert($0[1], at: 1) },
        Forgery(testDescription: "a disk twice") { $0.insert($0[2], at: 2) },
        Forgery(testDescription: "one more at the end") { $0.append($0[1]) },
        Forgery(testDescription: "another identity") { $0[1][$0[1].count - 512] ^= 1 },
        Forgery(testDescription: "another digest") { $0[4][$0[4].count - 512] ^= 1 },
        Forgery(testDescription: "another manifest") { members in
            if let place = members[3].lastIndex(of: UInt8(ascii: "1")) { members[3][place] += 1 }
        },
        Forgery(testDescription: "another disk") { $0[2][$0[2].count - 1] ^= 1 },
        Forgery(testDescription: "junk behind it", change: { _ in }, tail: [1, 2, 3]),
        Forgery(
            testDescription: "megabytes of zeros behind it", change: { _ in },
            tail: [UInt8](repeating: 0, count: 3 << 20)),
    ])
    func aWrongMemberIsFound(forgery: Forgery) async throws {
        let rig = try await chain()
        let web = "\(rig.target.path)/web"
        try await rig.shell("zstd -dqc 20260101-000002.tar.zst > ../t")
        var members = tarMembers(try Files.read("\(rig.target.path)/t"))
        try #require(members.count == 5)
        forgery.change(&members)
        let tar = members.flatMap { $0 } + [UInt8](repeating: 0, count: 1024) + forgery.tail
        try Files.write("\(rig.target.path)/t", tar)
        try await rig.shell("zstd -qf ../t -o \(web)/20260101-000002.tar.zst")
        let fault = try await rig.fault(withRecords: false)
        #expect(fault?.contains("damaged") == true, "\(fault ?? "-")")
    }

    /// The members of a tar, each with its headers.
    private func tarMembers(_ tar: [UInt8]) -> [[UInt8]] {
        var members: [[UInt8]] = []
        var start = 0
        var place = 0
        while place + 512 <= tar.count, tar[place] != 0 {
            let digits = tar[place + 124..<place + 136].prefix { $0 != 0 && $0 != 32 }
            let size = Int(String(decoding: digits, as: UTF8.self), radix: 8) ?? 0
            let isExtension = tar[place + 156] == UInt8(ascii: "x")
            place += 512 + (size + 511) / 512 * 512
            if isExtension { continue }
            members.append(Array(tar[start..<place]))
            start = place
        }
        return members
    }

    @Test func aWrongParentIsFound() async throws {
        let rig = try await chain()
        let other = try await chain()
        let first = "20260101-000001.tar.zst"
        let foreign = try Rig()
        try await foreign.makeDisk("data", "8M")
        try await foreign.io("data", "write -P 9 0 64k")
        try await foreign.backUp(["data"])
        // Another backup of that name.
        try Files.write(
            "\(rig.target.path)/web/\(first)", try Files.read("\(foreign.target.path)/web/\(first)")
        )
        let fault = try await rig.fault(withRecords: false)
        #expect(fault?.contains("is not the backup that it rests on") == true, "\(fault ?? "-")")
        // Two archives that have changed places.
        try await other.shell(
            "mv \(first) x; mv 20260101-000002.tar.zst \(first); mv x 20260101-000002.tar.zst")
        #expect(try await other.fault(withRecords: false)?.contains("it is the backup") == true)
        // None.
        try await other.shell("mv \(first) 20260101-000002.tar.zst")
        #expect(try await other.fault(withRecords: false)?.contains("rests on") == true)
    }

    @Test func anEncryptedArchiveIsCheckedLikewise() async throws {
        let keys = try Rig()
        func key(_ name: String) async throws -> (String, String) {
            let path = "\(keys.folder.path)/\(name)"
            let made = try await Program("/usr/bin/age-keygen", ["-o", path]).capture()
            try #require(made.exit.isSuccess)
            let words = try Files.readText(path).split(separator: "\n")
            return (path, String(words.first { $0.contains("public key: ") }?.dropFirst(14) ?? ""))
        }
        let (right, recipient) = try await key("right")
        let (wrong, _) = try await key("wrong")
        let rig = try await chain(recipients: [recipient])
        let path = rig.archive(try #require(rig.last))
        #expect(try await rig.fault(identity: right) == nil)
        #expect(try await rig.fault(identity: wrong)?.contains("cannot be decrypted") == true)
        #expect(try await rig.fault()?.contains("cannot be decrypted") == true)
        let good = try Files.read(path)
        for place in stride(from: 5, to: good.count, by: good.count / 12) {
            try rig.damage(path) { $0[place] ^= 4 }
            #expect(try await rig.fault(identity: right, withRecords: false) != nil, "at \(place)")
            try Files.write(path, good[..<place])
            #expect(try await rig.fault(identity: right, withRecords: false) != nil, "to \(place)")
            try Files.write(path, good)
        }
        try Files.write(path, good + [0])
        #expect(try await rig.fault(identity: right, withRecords: false) != nil)
    }

    /// The record's checksum is of the file, whatever is inside.
    @Test func aRecordThatDoesNotMatchIsFound() async throws {
        let rig = try await chain()
        let record = try #require(rig.last)
        let path = rig.archive(record)
        func check() async throws {
            let (target, all) = (rig.target, try await rig.target.list("web"))
            try await blocking {
                let chain = try BackupChain(record, in: target, among: all, identity: nil)
                for index in chain.records.indices { try chain.checkFile(index) }
            }
        }
        try await check()
        // A frame that every unpacker skips.
        try rig.damage(path) { $0 += [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0] }
        await #expect(throws: StorageError.self) { try await check() }
    }

    @Test func aLargeSparseDiskTakesLittleTimeAndRoom() async throws {
        let rig = try Rig()
        try await rig.makeDisk("data", "1T")
        try await rig.io("data", "write -P 1 0 64k", "write -P 2 900G 64k")
        let start = Clock.monotonic()
        let record = try await rig.backUp(["data"])
        #expect(record.bytes < 1 << 20)
        let chain = try BackupChain(
            record, in: rig.target, among: [record], identity: nil)
        try Files.makeFolder("\(rig.folder.path)/out")
        _ = try chain.unpack(
            into: "\(rig.folder.path)/out", isCancelled: { false }, progress: { _ in })
        let status = try Files.status(BackupChain.file("data", in: "\(rig.folder.path)/out"))
        #expect(status.size == 1 << 40 && status.allocated < 1 << 20)
        // A terabyte that was read would take many minutes.
        #expect(Clock.monotonic() - start < 60_000_000_000)
    }

    @Test func emptyAndFullDisksAndSeveralAreBackedUp() async throws {
        let rig = try Rig()
        try await rig.makeDisk("data", "1M")
        try await rig.makeDisk("full", "1M")
        try await rig.io("full", "write -P 5 0 1M")
        try await rig.backUp(["data", "full"])
        #expect(try await rig.unpack() == [UInt8](repeating: 0, count: 1 << 20))
        #expect(try await rig.unpack(disk: "full") == [UInt8](repeating: 5, count: 1 << 20))
        try await rig.backUp(["data", "full"])
        #expect(try await rig.unpack(disk: "full") == [UInt8](repeating: 5, count: 1 << 20))
    }

    @Test func aRepositoryOfResticKeepsThem() async throws {
        guard findProgram("restic") != nil else { return }
        let rig = try await chain()
        let repository = rig.folder.path + "/repository"
        let password = rig.folder.path + "/password"
        #expect(throws: StorageError.self) {
            try ResticTarget(repository, spool: rig.folder.path + "/spool", passwordFile: password)
        }
        try Files.write(password, "secret\n")
        let target = try ResticTarget(
            repository, spool: rig.folder.path + "/spool", passwordFile: password)
        let made = try await Program(
            "/usr/bin/restic", ["-r", repository, "--password-file", password, "init", "-q"]
        ).capture()
        try #require(made.exit.isSuccess, "\(made.errorText)")
        let records = try await rig.target.list("web")
        for record in records {
            let copy = "\(try target.spool("web"))/\(record.id).new"
            try Files.write(copy, try Files.read(rig.archive(record)))
            try await target.put(copy, record)
            #expect(!Files.exists(copy))
        }
        #expect(try await target.list("web") == records)
        #expect(try await target.list("other") == [])
        var proved = try #require(records.last)
        proved.verifiedAt = 1_800_000_000
        try await target.update(proved)
        #expect(try await target.list("web").last == proved)
        let place = "\(rig.folder.path)/out"
        try Files.makeFolder(place)
        let last = proved
        let all = try await target.list("web")
        let bytes = try await blocking {
            let chain = try BackupChain(last, in: target, among: all, identity: nil)
            for index in chain.records.indices { try chain.checkFile(index) }
            _ = try chain.unpack(into: place, isCancelled: { false }, progress: { _ in })
            return try Files.read(BackupChain.file("data", in: place))
        }
        #expect(try await rig.unpack() == bytes)
        try await target.remove(proved)
        #expect(try await target.list("web").map(\.id) == ["20260101-000001"])
    }
}

@Suite struct ExtentTests {
    @Test func runsThatTouchBecomeOne() {
        var runs: [Extent] = []
        runs.append(0, 5)
        runs.append(5, 5)
        runs.append(20, 1)
        runs.append(30, 0)
        #expect(runs == [Extent(offset: 0, length: 10), Extent(offset: 20, length: 1)])
    }

    @Test func intersectionsAreInBoth() {
        var dice = SystemRandomNumberGenerator()
        for _ in 0..<200 {
            func runs() -> ([Extent], Set<Int64>) {
                var runs: [Extent] = []
                var all: Set<Int64> = []
                for place in Int64(0)..<40 where Bool.random(using: &dice) {
                    runs.append(place, 1)
                    all.insert(place)
                }
                return (runs, all)
            }
            let (a, inA) = runs()
            let (b, inB) = runs()
            let both = a.intersection(b)
            #expect(Set(both.flatMap { Array($0.offset..<$0.end) }) == inA.intersection(inB))
            #expect(both.isOrdered(within: 40))
        }
    }

    @Test(arguments: [
        ([Extent(offset: 5, length: 5), Extent(offset: 0, length: 5)], false),
        ([Extent(offset: 0, length: 6), Extent(offset: 5, length: 1)], false),
        ([Extent(offset: 0, length: 11)], false), ([Extent(offset: -1, length: 1)], false),
        ([Extent(offset: 3, length: 0)], false),
        ([Extent(offset: Int64.max, length: Int64.max)], false),
        ([Extent(offset: 0, length: 10)], true), ([], true),
    ])
    func hostileRunsAreRefused(runs: [Extent], isFine: Bool) {
        #expect(runs.isOrdered(within: 10) == isFine)
    }

    @Test(arguments: [0, 951_782_400, 1_709_164_800, 1_767_225_600, 4_107_542_399] as [Int64])
    func aNameTellsItsTime(seconds: Int64) {
        let id = BackupID.make(seconds) { _ in false }
        #expect(BackupID.isValid(id) && BackupID.seconds(id) == seconds)
        let next = BackupID.make(seconds) { $0 == id }
        #expect(next == id + "-2" && BackupID.isValid(next))
        #expect(BackupID.parse(fileName: id + ".tar.zst.age")?.encrypted == true)
    }

    @Test(arguments: [
        "", "x", "20260101", "20260101-0000", "../20260101-000000", "20260101-000000-x",
    ])
    func otherNamesAreNone(text: String) { #expect(!BackupID.isValid(text)) }
}
