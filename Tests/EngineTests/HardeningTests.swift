// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Testing

@testable import Engine
@testable import Images

@Suite struct HardeningTests {
    private func vm(
        _ level: Hardening.Level, except exceptions: [String] = [], parameters: [String] = []
    ) -> VM {
        var vm = VM(name: "web")
        vm.hardening.kernel = level
        vm.hardening.exceptions = exceptions
        vm.kernel.parameters = parameters
        return vm
    }

    /// What a guest answers in which everything holds that `vm` asks for.
    private func answer(_ vm: VM, release: String = "6.12.0") -> [String] {
        var lines = ["release \(release)", "cmdline console=ttyS0"]
        for (setting, value) in vm.hardening.settings {
            switch setting.kind {
            case .sysctl:
                lines.append("sysctl \(setting.name.replacing(".", with: "/")):\(value)")
            case .module: lines.append("install \(setting.name) /bin/false")
            case .parameter:
                lines[1] += " " + setting.name + (value.isEmpty ? "" : "=\(value)")
            }
        }
        return lines + [
            "effect kernel/security/lockdown:none integrity [confidentiality]",
            "effect module/module/parameters/sig_enforce:Y",
            "effect module/page_alloc/parameters/shuffle:Y", "effect debugfs:off", "effect pti:on",
            "file 90-hardening.conf:kernel.sysrq=0", "end",
        ]
    }

    private func read(_ vm: VM, _ lines: [String]) -> GuestHardening {
        GuestHardening(vm, HardeningFacts(parsing: lines.joined(separator: "\n")))
    }

    private func others(_ read: GuestHardening) -> [HardeningRow] {
        read.rows.filter { $0.state != .holds }
    }

    @Test(arguments: [Hardening.Level.standard, .strict])
    func allHolds(level: Hardening.Level) {
        let vm = vm(level)
        let read = read(vm, answer(vm))
        #expect(others(read) == [] && read.holds)
        #expect(read.rows.count == vm.hardening.settings.count)
        #expect(read.level == level && read.kernel == "6.12.0")
    }

    @Test func offAsksForNothing() {
        #expect(read(vm(.off), ["release 6.1.0", "end"]).rows == [])
    }

    @Test func whatDiffersIsSaidWithWhatWasFound() {
        let vm = vm(.strict)
        var lines = answer(vm).map { line in
            switch line {
            case "sysctl kernel/sysrq:0": "sysctl kernel/sysrq:438"
            case "sysctl kernel/printk:3 3 3 3": "sysctl kernel/printk:3\t3\t3\t3"
            case "install udf /bin/false": "install udf /sbin/modprobe --ignore-install udf"
            case "effect kernel/security/lockdown:none integrity [confidentiality]":
                "effect kernel/security/lockdown:[none] integrity confidentiality"
            default: line.replacing(" init_on_free=1", with: "")
            }
        }
        lines.insert("present sctp", at: 2)
        let read = read(vm, lines)
        #expect(
            others(read) == [
                .init(setting: "kernel.sysrq", wanted: "0", found: "438", state: .differs),
                .init(
                    setting: "parameter:init_on_free", wanted: "1", found: nil, state: .differs),
                .init(
                    setting: "parameter:lockdown", wanted: "confidentiality",
                    found: "confidentiality", state: .differs),
                .init(
                    setting: "module:sctp", wanted: "blocked", found: "loaded", state: .differs),
                .init(
                    setting: "module:udf", wanted: "blocked", found: "not blocked",
                    state: .differs),
            ])
        #expect(!read.holds)
    }

    /// Debian 12's kernel: what it lacks is there, with the kernel that has it.
    @Test func whatTheKernelLacksIsSaidWithTheKernelItNeeds() {
        let vm = vm(.strict)
        let gone = ["io_uring_disabled", "legacy_tiocsti", "unprivileged_userns_clone", "sysrq"]
        let lines = answer(vm, release: "6.1.0-56-cloud-amd64").filter { line in
            !gone.contains { line.hasPrefix("sysctl ") && line.contains($0) }
        }
        let read = read(vm, lines)
        #expect(
            others(read).map { "\($0.setting) \($0.found ?? "-") \($0.state)" } == [
                "kernel.sysrq - lacks(need: \"a kernel that is built with it\")",
                "kernel.unprivileged_userns_clone - "
                    + "lacks(need: \"Debian\\\'s kernel, whose patch it is\")",
                "kernel.io_uring_disabled - lacks(need: \"Linux 6.6\")",
                "dev.tty.legacy_tiocsti - lacks(need: \"Linux 6.2\")",
                "parameter:ia32_emulation 0 lacks(need: \"Linux 6.7\")",
            ])
        #expect(read.holds, "nothing that it has differs")
        // One that is new enough and has it not was built without.
        let newer = self.read(vm, lines.map { $0.hasPrefix("release") ? "release 6.12.0" : $0 })
        #expect(
            others(newer).contains {
                $0.setting == "kernel.io_uring_disabled"
                    && $0.state == .lacks(need: "a kernel that is built with it")
            })
    }

    @Test func exceptionsAreShownAsSuch() {
        let vm = vm(.strict, except: ["kernel.sysrq", "module:udf"])
        let read = read(vm, answer(vm) + ["sysctl kernel/sysrq:438"])
        #expect(
            others(read) == [
                .init(setting: "kernel.sysrq", wanted: "0", found: "438", state: .excepted),
                .init(
                    setting: "module:udf", wanted: "blocked", found: "not blocked",
                    state: .excepted),
            ])
        #expect(read.holds)
    }

    @Test func whatIsDeclaredOtherwiseIsSaidWithWhere() {
        let vm = vm(.strict, parameters: ["lockdown=integrity", "page-alloc.shuffle=0"])
        let lines = answer(vm).map { line in
            switch line {
            case "sysctl net/ipv4/ip_forward:0": "sysctl net/ipv4/ip_forward:1"
            case "sysctl kernel/modules_disabled:1": "sysctl kernel/modules_disabled:0"
            case "sysctl kernel/sysrq:0": "sysctl kernel/sysrq:1"
            case "effect kernel/security/lockdown:none integrity [confidentiality]":
                "effect kernel/security/lockdown:none [integrity] confidentiality"
            default: line.hasPrefix("cmdline") ? line + " lockdown=integrity" : line
            }
        }
        let files = [
            "file 95-docker.conf:# Containers are routed.", "file 95-docker.conf:",
            "file 95-docker.conf:net.ipv4.ip_forward = 1",
            "file 95-docker.conf:-kernel/modules_disabled=0",
            // It comes before ours, and says nothing.
            "file 10-early.conf:kernel.sysrq=1",
        ]
        #expect(
            others(read(vm, files + lines)).map { "\($0.setting) \($0.found ?? "-") \($0.state)" }
                == [
                    "kernel.sysrq 1 differs",
                    "net.ipv4.ip_forward 1 overruled(by: \"/etc/sysctl.d/95-docker.conf\")",
                    "kernel.modules_disabled 0 overruled(by: \"/etc/sysctl.d/95-docker.conf\")",
                    "parameter:lockdown integrity overruled(by: \"kernel.parameters\")",
                ])
    }

    @Test func aCutOrWildAnswerIsNone() {
        let lines = answer(vm(.standard))
        #expect(!HardeningFacts(parsing: lines.dropLast().joined(separator: "\n")).isWhole)
        let wild = HardeningFacts(
            parsing: "sysctl\ninstall\nfile\nfile x\nfile a:b\neffect\n= = =\n\u{1b}[2J\nend")
        #expect(wild.isWhole && wild.blocked.isEmpty && wild.overrules.isEmpty)
        #expect(!read(vm(.standard), ["end"]).rows.contains { $0.state == .holds })
        let long = read(
            vm(.standard), ["sysctl kernel/sysrq:" + String(repeating: "9", count: 5000), "end"])
        #expect(long.rows.allSatisfy { ($0.found ?? "").count <= 80 })
    }

    /// The guest's own shell reads it.
    @Test func theScriptNamesEverySysctlAndModule() {
        for setting in HardeningSetting.table where setting.kind == .sysctl {
            #expect(HardeningFacts.script.contains(setting.name.replacing(".", with: "/")))
        }
        #expect(HardeningFacts.script.contains(" sctp "))
        #expect(!HardeningFacts.script.contains("'\"'"))
    }

    // MARK: The command line

    private func parameters(_ vm: VM) -> [String] {
        let files = Layout(root: "/r", run: "/run/m").vm("web")
        let boot = BootFiles(
            kernel: "/k", initramfs: "/i", layers: [],
            commandLine: "console=ttyS0 lsm=landlock,lockdown,yama", digests: [:])
        return MachinePlan(
            generation: GenerationRecord(number: 1, appliedAt: 0, imageDigest: "d", vm: vm),
            files: files, uuid: "u", accelerator: .kvm, hypervisor: "/q", boot: boot, entries: [],
            oemStringFiles: []
        ).kernelParameters()
    }

    @Test func theCommandLineHasOneListOfModulesOfSecurity() {
        let own = parameters(vm(.off, parameters: ["lsm=landlock,apparmor"]))
        #expect(own == ["console=ttyS0", "lsm=landlock,apparmor"])
        let strict = parameters(vm(.strict))
        #expect(strict.count { $0.hasPrefix("lsm=") } == 1)
        let first = ["console=ttyS0", "lsm=landlock,lockdown,yama", "slab_nomerge"]
        #expect(strict.prefix(3).elementsEqual(first))
    }

    @Test func theFileWinsOverTheHardening() {
        let words = parameters(vm(.strict, parameters: ["lockdown=integrity", "init-on-free=0"]))
        #expect(!words.contains("lockdown=confidentiality") && !words.contains("init_on_free=1"))
        #expect(words.suffix(2) == ["lockdown=integrity", "init-on-free=0"])
    }
}
