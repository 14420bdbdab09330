// SPDX-License-Identifier: Apache-2.0
import Fleets
import Testing

@testable import Engine

/// Texts of the kernel as they were recorded, and what is said of them.
struct SecurityJudgeTests {
    private static let ours = [
        "mnt": "mnt:[1]", "ipc": "ipc:[1]", "net": "net:[1]", "uts": "uts:[1]", "pid": "pid:[1]",
        "user": "user:[1]", "cgroup": "cgroup:[1]",
    ]

    private static let confined = ProcessFacts(
        pid: 4242,
        status: """
            Name:\tqemu-system-x86\nUmask:\t0077\nState:\tS (sleeping)\nPPid:\t4241
            Uid:\t1904234567\t1904234567\t1904234567\t1904234567
            CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000
            CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2
            Seccomp_filters:\t2
            """,
        mounts: """
            516 515 0:61 / / ro,nosuid,noexec - tmpfs none rw,size=1024k,mode=755
            517 516 254:0 /usr /usr ro,nosuid,nodev,relatime - ext4 /dev/vda rw
            518 516 254:0 /r/vms/web/disks /r/vms/web/disks rw,nosuid,nodev,noexec - ext4 /dev/vda rw
            519 516 0:62 / /proc rw,nosuid,nodev,noexec - proc none rw,hidepid=invisible,subset=pid
            """,
        limits: "Limit                     Soft Limit Hard Limit Units\n"
            + "Max core file size        0          0          bytes     \n",
        groups: "8:pids:/martlet/ab-web\n4:memory:/martlet/ab-web\n1:cpu:/\n0::/\n",
        links: "Inter-|   Receive\n face |bytes\n    lo:       0       0\n",
        namespaces: [
            "mnt": "mnt:[2]", "ipc": "ipc:[2]", "net": "net:[2]", "uts": "uts:[2]",
            "pid": "pid:[1]", "user": "user:[1]", "cgroup": "cgroup:[1]",
        ],
        values: ["memory.limit_in_bytes": "805306368\n", "pids.max": "128\n"])

    private func judge(_ facts: ProcessFacts, shared: UInt32? = nil) -> SecurityJudge {
        SecurityJudge(process: "hypervisor", facts: facts, ours: Self.ours, sharedUser: shared)
    }

    private func said(_ rows: [SecurityReport.Row]) -> [String] {
        rows.map { "\($0.item): \($0.holds.map { $0 ? "yes" : "no" } ?? "unknown"): \($0.detail)" }
    }

    @Test func aConfinedProcessIsSaidToBe() {
        #expect(
            said(judge(Self.confined).rows) == [
                "user: yes: 1904234567, its own", "capabilities: yes: none, and none to be had",
                "no new privileges: yes: set", "system calls: yes: filtered by seccomp, 2 of them",
                "namespaces: yes: its own: ipc mnt net uts; the host's: cgroup pid user",
                "files: yes: a root of its own with 3 places; writable: /r/vms/web/disks",
                "other processes: yes: not seen: hidepid=invisible,subset=pid",
                "network: yes: its own, with nothing in it", "core files: yes: none are written",
            ])
    }

    @Test func aDaemonThatIsInItsFolderSeesNothingElse() {
        var facts = Self.confined
        facts.mounts =
            "9 8 254:0 /srv/my\\040music / ro,nosuid,relatime master:6 - ext4 /dev/vda rw"
        #expect(
            said(judge(facts).rows).contains("files: yes: nothing but /srv/my music, read-only"))
        // A host whose root is a subvolume has its /proc there.
        facts.mounts =
            "9 8 0:27 /@rootfs / rw - btrfs /dev/vda rw\n10 9 0:5 / /proc rw - proc proc rw"
        #expect(said(judge(facts).rows).contains { $0.hasPrefix("files: no: the host's") })
    }

    @Test func whatDoesNotHoldIsSaid() {
        var facts = Self.confined
        facts.status = """
            Uid:\t0\t0\t0\t0\nCapInh:\t0\nCapPrm:\t1ff\nCapEff:\t1ff\nCapBnd:\t1ff\nCapAmb:\t0
            NoNewPrivs:\t0\nSeccomp:\t0
            """
        facts.namespaces = Self.ours
        facts.mounts = "1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:5 / /proc rw - proc proc rw"
        facts.limits = "Max core file size        0          unlimited  bytes"
        let rows = judge(facts).rows
        #expect(rows.allSatisfy { $0.holds == false }, "\(said(rows))")
        facts.status = "Uid:\t1000\t1000\t1000\t1000"
        #expect(judge(facts, shared: 1000).rows.first?.holds == false)
    }

    @Test func whatCannotBeReadIsNotGuessed() {
        let rows = judge(ProcessFacts(pid: 1, status: "")).rows
        #expect(rows.allSatisfy { $0.holds == nil }, "\(said(rows))")
    }

    @Test func limitsAreWhatTheKernelHas() throws {
        let fleet = try #require(
            FleetFile.parse("vms: { web: { limits: { cpu: 50%, io: 1MiB/s } } }").fleet)
        let vm = try #require(fleet.vm("web"))
        let files = Layout(root: "/r", run: "/run/m").vm("web")
        let control = ControlGroups(
            mounts: """
                30 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
                31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
                32 23 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
                33 23 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
                """
        ) { _ in "" }
        let limits = ProcessView.Limits(of: vm, files)
        #expect(
            said(judge(Self.confined).limits(limits, control, devices: ["254:0"])) == [
                "limit of cpu: no: none: it is in no group of its own",
                "limit of memory: yes: 805306368",
                "limit of io: no: this host has no control groups for it",
                "limit of tasks: yes: 128",
            ])
        var facts = Self.confined
        facts.values["pids.max"] = "max\n"
        #expect(
            said(judge(facts).limits(limits, control, devices: [])).last
                == "limit of tasks: no: pids.max is max, not 128")
    }

    @Test func bothVersionsOfControlGroupsAreWritten() {
        let files = Layout(root: "/r", run: "/run/m").vm("web")
        var vm = VM(name: "web")
        vm.limits.cpu = Percent("150%")
        vm.limits.io = ByteRate("1MiB/s")
        let limits = ProcessView.Limits(of: vm, files)
        let unified = ControlGroups(mounts: "33 23 0:29 / /sys/fs/cgroup rw - cgroup2 none rw") {
            $0 == "/sys/fs/cgroup" ? "cpuset cpu io memory pids\n" : ""
        }
        #expect(unified.trees.count == 4 && unified.trees.values.allSatisfy(\.isUnified))
        func lines(_ groups: ControlGroups) -> [String] {
            ControlGroups.Kind.allCases.flatMap {
                groups.settings($0, limits, devices: ["8:0"]).map { "\($0.file)=\($0.value)" }
            }
        }
        #expect(
            lines(unified) == [
                "cpu.max=150000 100000", "memory.max=805306368",
                "io.max=8:0 rbps=1048576 wbps=1048576", "pids.max=128",
            ])
        var legacy = unified
        for kind in ControlGroups.Kind.allCases {
            legacy.trees[kind] = .init(mount: "/c/\(kind.legacy)", isUnified: false)
        }
        #expect(
            lines(legacy) == [
                "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000",
                "memory.limit_in_bytes=805306368",
                "blkio.throttle.read_bps_device=8:0 1048576",
                "blkio.throttle.write_bps_device=8:0 1048576", "pids.max=128",
            ])
    }
}
