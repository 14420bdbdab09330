// SPDX-License-Identifier: Apache-2.0
import Support
import Testing

@testable import Fleets

@Suite struct HardeningTests {
    private func lines(_ hardening: Hardening) -> [String] {
        hardening.settings.map { "\($0.setting.key)=\($0.value)" }
    }

    @Test func eachSettingStandsThereOnceWithAReason() {
        let keys = HardeningSetting.table.map(\.key)
        #expect(Set(keys).count == keys.count)
        for setting in HardeningSetting.table {
            #expect(!setting.reason.isEmpty && setting.reason.utf8.count <= 80, "\(setting.key)")
            #expect(!setting.name.contains("-"), "modprobe and the kernel write it with '_'")
            // There is one list of them, and it is the image's.
            #expect(setting.name != "lsm")
        }
    }

    @Test func strictIsNeverLessThanStandard() {
        for setting in HardeningSetting.table where setting.standard != nil {
            #expect(setting.strict != nil, "\(setting.key)")
        }
        let standard = lines(Hardening(.standard))
        let strict = lines(Hardening(.strict))
        #expect(
            Set(standard).subtracting(strict) == [
                "kernel.yama.ptrace_scope=2", "kernel.oops_limit=10",
            ])
        #expect(
            strict.filter { !$0.hasPrefix("module:") && !standard.contains($0) } == [
                "kernel.yama.ptrace_scope=3", "kernel.oops_limit=1", "user.max_user_namespaces=0",
                "kernel.modules_disabled=1", "parameter:init_on_free=1", "parameter:vdso32=0",
                "parameter:ia32_emulation=0", "parameter:oops=panic", "parameter:pti=on",
                "parameter:mitigations=auto", "parameter:module.sig_enforce=1",
                "parameter:lockdown=confidentiality",
            ])
        #expect(lines(Hardening(.off)) == [])
    }

    @Test func exceptionsTakeSingleSettingsAway() {
        let all = lines(Hardening(.strict))
        let names = ["kernel.yama.ptrace_scope", "module:udf", "parameter:lockdown"]
        let left = lines(Hardening(.strict, except: names))
        #expect(
            Set(all).subtracting(left) == [
                "kernel.yama.ptrace_scope=3", "module:udf=blocked",
                "parameter:lockdown=confidentiality",
            ])
        #expect(Hardening(.strict, except: names).excepted.map(\.key).sorted() == names.sorted())
        // One of another level takes nothing away.
        #expect(
            lines(Hardening(.standard, except: ["kernel.modules_disabled"]))
                == lines(Hardening(.standard)))
        #expect(Hardening(.off, except: ["kernel.sysrq"]).excepted == [])
    }

    @Test(arguments: [
        ("6.1.0-56-cloud-amd64", 6, 6, true), ("6.6.0", 6, 6, false),
        ("6.12.107+deb13", 6, 6, false),
        ("5.10.0", 6, 2, true), ("7.0-rc1", 6, 12, false), ("6.1", 6, 1, false),
    ])
    func kernelsAreOldEnoughOrNot(release: String, major: Int, minor: Int, isMissing: Bool) {
        #expect(KernelNeed.version(major, minor).isMissing(in: release) == isMissing)
    }

    @Test(arguments: ["", "six", "6"]) func oddReleasesTellNothing(release: String) {
        #expect(KernelNeed.version(6, 6).isMissing(in: release) == nil)
        #expect(KernelNeed.build("a patch").isMissing(in: "6.1.0") == nil)
    }

    /// The page shows the table as it is.
    @Test func thePageIsInStep() throws {
        let page = try repositoryFile("docs/hardening.md")
        #expect(page.contains("\n" + HardeningTests.page() + "\n"), "\(HardeningTests.page())")
    }

    /// The tables of docs/hardening.md.
    private static func page() -> String {
        func cell(_ value: String?) -> String {
            value.map { $0.isEmpty ? "given" : "`\($0.replacing("|", with: "\\|"))`" } ?? "–"
        }
        var lines = ["| setting | standard | strict | why | needs |", "|---|---|---|---|---|"]
        for setting in HardeningSetting.table where setting.kind != .module {
            lines.append(
                "| `\(setting.key)` | \(cell(setting.standard)) | \(cell(setting.strict)) "
                    + "| \(setting.reason) | \(setting.need.map { "\($0)" } ?? "") |")
        }
        lines += ["", "| modules | standard | strict | why |", "|---|---|---|---|"]
        var groups: [(reason: String, isStandard: Bool, names: [String])] = []
        for setting in HardeningSetting.table where setting.kind == .module {
            if groups.last?.reason != setting.reason {
                groups.append((setting.reason, setting.standard != nil, []))
            }
            groups[groups.count - 1].names.append("`\(setting.name)`")
        }
        for group in groups {
            lines.append(
                "| \(group.names.joined(separator: " ")) | \(group.isStandard ? "blocked" : "–") "
                    + "| blocked | \(group.reason) |")
        }
        return lines.joined(separator: "\n")
    }
}
