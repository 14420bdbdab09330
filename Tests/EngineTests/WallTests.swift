// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Engine
@testable import Linux

/// The walls of a VM are said twice, and must be the same.
///
/// `ProcessView` is what Martlet's own launcher carries out, the template what systemd does.
struct WallTests {
    /// A unit's [Service], as systemd merges lines of one name.
    private static func settings(of file: String) throws -> [String: [String]] {
        let root = Files.parent(Files.parent(Files.parent(#filePath)))
        var isService = false
        var found: [String: [String]] = [:]
        for line in try Files.readText("\(root)/packaging/systemd/\(file)").split(separator: "\n") {
            if line.hasPrefix("[") { isService = line == "[Service]" }
            guard isService, !line.hasPrefix("#"), let end = line.firstIndex(of: "=") else {
                continue
            }
            found[String(line[..<end]), default: []].append(String(line[line.index(after: end)...]))
        }
        return found
    }

    /// Of `SystemCallFilter`: what is named as allowed, and what is taken from that.
    private struct Calls: Equatable {
        var allowed: Set<String> = []
        var refused: Set<String> = []

        init(_ lines: [String]) {
            for line in lines {
                let names = line.drop { $0 == "~" }.split(separator: " ").map(String.init)
                if line.hasPrefix("~") {
                    refused.formUnion(names)
                } else {
                    allowed.formUnion(names)
                }
            }
        }
    }

    /// What only the template refuses: of what they allow, systemd's @system-service, it is no part,
    /// but a drop-in that allows more of the kernel is not to open other processes by the way.
    private static let refusedByUnitsAlone: Set = ["ptrace", "pidfd_getfd"]

    /// How a unit starts and ends, what it is given and what it may say: no walls.
    private static let life: Set = [
        "Type", "NotifyAccess", "ExecStartPre", "ExecStart", "ExecStartPost", "ExecStopPost",
        "TimeoutStartSec", "TimeoutStopSec", "KillMode", "Restart", "RestartSec", "Environment",
        "FileDescriptorStoreMax", "Slice", "OOMPolicy", "LogRateLimitIntervalSec",
        "LogRateLimitBurst",
    ]

    /// Walls that the view says in other words, or that only systemd has.
    private static let ofUnitsAlone: [String: String] = [
        "User": "an argument of the launcher", "SecureBits": "the launcher locks them always",
        "RootDirectory": "`readable` and `writable`", "RootDirectoryStartOnly": "of the same",
        "MountAPIVFS": "the launcher always mounts /proc, and /dev of `devices`",
        "TemporaryFileSystem": "`hidden`", "BindReadOnlyPaths": "`readable`",
        "BindPaths": "`writable` and `devices`", "ReadWritePaths": "`writable`",
        "DevicePolicy": "`devices`", "DeviceAllow": "`devices`",
        "PrivateUsers": "root's launcher makes no user namespace",
        "IPAddressDeny": "a second wall behind PrivateNetwork",
    ]

    /// What `confine: false` leaves: the VM's own user, and no privilege.
    private static let kept: Set = [
        "User", "UMask", "NoNewPrivileges", "CapabilityBoundingSet", "AmbientCapabilities",
        "SecureBits", "RestrictSUIDSGID", "RemoveIPC", "KeyringMode", "LimitCORE",
        // Of walls that are down.
        "RootDirectoryStartOnly", "DeviceAllow", "SystemCallErrorNumber",
    ]

    @Test func theTemplateAndTheViewPutUpTheSameWalls() throws {
        let unit = try Self.settings(of: "microvm@.service")
        let view = ProcessView.standard(hasNetwork: false, denyWriteExecute: true)
        for setting in view where setting.name != "SystemCallFilter" {
            #expect(unit[setting.name] == [setting.value], "\(setting.name)")
        }
        #expect(
            Set(unit.keys)
                == Self.life.union(view.map(\.name)).union(Self.ofUnitsAlone.keys))
    }

    @Test func theTemplateAndTheViewAllowTheSameCalls() throws {
        let unit = Calls(try #require(Self.settings(of: "microvm@.service")["SystemCallFilter"]))
        let view = Calls(ProcessView.calls)
        #expect(unit.allowed == view.allowed)
        #expect(unit.refused.subtracting(Self.refusedByUnitsAlone) == view.refused)
        #expect(Self.refusedByUnitsAlone.isSubset(of: unit.refused.subtracting(view.refused)))
        // What the launcher makes of the words: none of those that were named may be among them.
        #expect(unit.refused.isDisjoint(with: harmlessCalls))
    }

    /// A drop-in takes walls down by naming them: one that it forgets would stay.
    @Test func aVMWithoutWallsHasNoneButThoseOfItsUser() throws {
        let unit = try Self.settings(of: "microvm@.service")
        let down = UnitSettings.noWalls.compactMap { line in
            line.firstIndex(of: "=").map { String(line[..<$0]) }
        }
        #expect(Set(unit.keys).subtracting(Self.life) == Self.kept.union(down))
    }
}
