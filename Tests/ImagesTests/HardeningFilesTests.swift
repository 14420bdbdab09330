// SPDX-License-Identifier: Apache-2.0
import Fleets
import Support
import Testing

@testable import Images

@Suite struct HardeningFilesTests {
    @Test func standard() {
        let files = HardeningFiles(Hardening(.standard))
        #expect(
            files.sysctl == """
                kernel.kptr_restrict=2
                kernel.dmesg_restrict=1
                kernel.printk=3 3 3 3
                kernel.unprivileged_bpf_disabled=1
                net.core.bpf_jit_harden=2
                kernel.kexec_load_disabled=1
                kernel.sysrq=0
                kernel.unprivileged_userns_clone=0
                kernel.perf_event_paranoid=3
                kernel.yama.ptrace_scope=2
                kernel.randomize_va_space=2
                kernel.core_pattern=|/bin/false
                kernel.io_uring_disabled=2
                kernel.warn_limit=10
                kernel.oops_limit=10
                kernel.panic=10
                kernel.panic_on_oops=1
                vm.mmap_rnd_bits=32
                vm.mmap_rnd_compat_bits=16
                vm.mmap_min_addr=65536
                vm.unprivileged_userfaultfd=0
                vm.overcommit_memory=0
                fs.protected_symlinks=1
                fs.protected_hardlinks=1
                fs.protected_fifos=2
                fs.protected_regular=2
                fs.suid_dumpable=0
                dev.tty.ldisc_autoload=0
                dev.tty.legacy_tiocsti=0
                kernel.ftrace_enabled=0
                net.ipv4.tcp_syncookies=1
                net.ipv4.tcp_rfc1337=1
                net.ipv4.ip_forward=0
                net.ipv4.icmp_echo_ignore_broadcasts=1
                net.ipv4.icmp_ignore_bogus_error_responses=1
                net.ipv4.conf.all.rp_filter=1
                net.ipv4.conf.default.rp_filter=1
                net.ipv4.conf.all.accept_redirects=0
                net.ipv4.conf.default.accept_redirects=0
                net.ipv4.conf.all.secure_redirects=0
                net.ipv4.conf.default.secure_redirects=0
                net.ipv4.conf.all.send_redirects=0
                net.ipv4.conf.default.send_redirects=0
                net.ipv4.conf.all.accept_source_route=0
                net.ipv4.conf.default.accept_source_route=0
                net.ipv4.conf.all.log_martians=1
                net.ipv4.conf.default.log_martians=1
                net.ipv6.conf.all.accept_redirects=0
                net.ipv6.conf.default.accept_redirects=0
                net.ipv6.conf.all.accept_source_route=0
                net.ipv6.conf.default.accept_source_route=0

                """)
        #expect(files.lateSysctl == "")
        #expect(files.modprobe.hasPrefix("install dccp /bin/false\ninstall sctp /bin/false\n"))
        #expect(files.modprobe.hasSuffix("\ninstall ublk_drv /bin/false\n"))
        #expect(
            Hardening(.standard).kernelParameters == [
                "slab_nomerge", "init_on_alloc=1", "page_alloc.shuffle=1",
                "randomize_kstack_offset=on", "vsyscall=none", "debugfs=off",
            ])
    }

    @Test func strict() {
        let files = HardeningFiles(Hardening(.strict))
        #expect(files.sysctl.contains("\nkernel.yama.ptrace_scope=3\n"))
        #expect(files.sysctl.hasSuffix("\nuser.max_user_namespaces=0\n"))
        // Set at once it would keep the start from loading what it needs.
        #expect(!files.sysctl.contains("modules_disabled"))
        #expect(files.lateSysctl == "kernel.modules_disabled=1\n")
        #expect(files.modprobe.hasSuffix("\ninstall msr /bin/false\ninstall cpuid /bin/false\n"))
        #expect(
            Hardening(.strict).kernelParameters.suffix(8) == [
                "init_on_free=1", "vdso32=0", "ia32_emulation=0", "oops=panic", "pti=on",
                "mitigations=auto", "module.sig_enforce=1", "lockdown=confidentiality",
            ])
    }

    @Test func offIsNothing() {
        #expect(HardeningFiles(Hardening(.off)) == HardeningFiles())
        #expect(Hardening(.off).kernelParameters == [])
    }

    @Test func exceptions() {
        let some = Hardening(
            .strict,
            except: ["kernel.modules_disabled", "kernel.sysrq", "module:sctp", "parameter:pti"])
        let files = HardeningFiles(some)
        #expect(files.lateSysctl == "")
        #expect(!files.sysctl.contains("sysrq"))
        #expect(files.sysctl.contains("kernel.kexec_load_disabled=1\nkernel.unprivileged_"))
        #expect(files.modprobe.hasPrefix("install dccp /bin/false\ninstall rds /bin/false\n"))
        #expect(!some.kernelParameters.contains("pti=on"))
    }
}
