// SPDX-License-Identifier: Apache-2.0

extension HardeningSetting {
    /// Every setting of the guest's kernel: the one place that says what a level is.
    ///
    /// docs/hardening.md shows it, and a test keeps the two in step.
    package static let table = system + network + late + parameters + modules

    // MARK: Settings that can be written while the kernel runs

    private static let system: [HardeningSetting] = [
        sysctl("kernel.kptr_restrict", "2", "addresses of the kernel are hidden, from root too"),
        sysctl("kernel.dmesg_restrict", "1", "the kernel's messages are for root"),
        sysctl("kernel.printk", "3 3 3 3", "only errors reach the console"),
        sysctl("kernel.unprivileged_bpf_disabled", "1", "BPF programs are for root, for good"),
        sysctl("net.core.bpf_jit_harden", "2", "constants in BPF programs are blinded"),
        sysctl("kernel.kexec_load_disabled", "1", "no other kernel is started from this one"),
        sysctl("kernel.sysrq", "0", "no magic keys on the console"),
        sysctl(
            "kernel.unprivileged_userns_clone", "0", "user namespaces are for root",
            need: .build("Debian's kernel, whose patch it is")),
        sysctl("kernel.perf_event_paranoid", "3", "performance events are for root"),
        sysctl(
            "kernel.yama.ptrace_scope", "2", strict: "3",
            "only root attaches to other processes; strict: nobody, until the next start"),
        sysctl("kernel.randomize_va_space", "2", "memory of processes is laid out at random"),
        sysctl("kernel.core_pattern", "|/bin/false", "no core dumps"),
        sysctl(
            "kernel.io_uring_disabled", "2", "no io_uring, a common way to the kernel's faults",
            need: .version(6, 6)),
        sysctl(
            "kernel.warn_limit", "10", "a kernel that warns again and again is stopped",
            need: .version(6, 2)),
        sysctl(
            "kernel.oops_limit", "10", strict: "1",
            "a kernel that fails again and again is stopped", need: .version(6, 2)),
        sysctl("kernel.panic", "10", "a kernel that gave up ends within 10 s"),
        sysctl("kernel.panic_on_oops", "1", "a kernel that found itself damaged gives up"),
        sysctl("vm.mmap_rnd_bits", "32", "as many random bits in addresses as there are"),
        sysctl("vm.mmap_rnd_compat_bits", "16", "the same for 32-bit programs"),
        sysctl("vm.mmap_min_addr", "65536", "nothing can be mapped where null pointers lead"),
        sysctl("vm.unprivileged_userfaultfd", "0", "page faults are not handled by programs"),
        sysctl("vm.overcommit_memory", "0", "memory that is obviously not there is refused"),
        sysctl("fs.protected_symlinks", "1", "links in shared folders lead no one astray"),
        sysctl("fs.protected_hardlinks", "1", "hard links only to one's own files"),
        sysctl("fs.protected_fifos", "2", "no writing to others' pipes in shared folders"),
        sysctl("fs.protected_regular", "2", "no writing to others' files in shared folders"),
        sysctl("fs.suid_dumpable", "0", "no memory dump of programs with privilege"),
        sysctl("dev.tty.ldisc_autoload", "0", "line disciplines are not loaded on demand"),
        sysctl(
            "dev.tty.legacy_tiocsti", "0", "no typing into the terminal of others",
            need: .version(6, 2)),
        sysctl("kernel.ftrace_enabled", "0", "functions of the kernel are not traced"),
    ]

    private static let network: [HardeningSetting] =
        [
            sysctl("net.ipv4.tcp_syncookies", "1", "a flood of connections is survived"),
            sysctl("net.ipv4.tcp_rfc1337", "1", "old connections are not ended by strangers"),
            sysctl("net.ipv4.ip_forward", "0", "a guest is no router"),
            sysctl("net.ipv4.icmp_echo_ignore_broadcasts", "1", "no part in floods of pings"),
            sysctl(
                "net.ipv4.icmp_ignore_bogus_error_responses", "1", "wrong answers are not logged"),
        ] + both("ipv4", "rp_filter", "1", "packets from impossible senders are dropped")
        + both("ipv4", "accept_redirects", "0", "routes are not changed by strangers")
        + both("ipv4", "secure_redirects", "0", "nor by the gateway")
        + both("ipv4", "send_redirects", "0", "a guest is no router")
        + both("ipv4", "accept_source_route", "0", "senders do not choose the way")
        + both("ipv4", "log_martians", "1", "packets from impossible senders are logged")
        + both("ipv6", "accept_redirects", "0", "routes are not changed by strangers")
        + both("ipv6", "accept_source_route", "0", "senders do not choose the way")

    private static let late = [
        sysctl(
            "user.max_user_namespaces", nil, strict: "0", "no user namespaces, for root neither"),
        sysctl(modulesDisabled, nil, strict: "1", "no module is loaded once the start is over"),
    ]

    /// It is set at the end of the start, and can be taken back by nothing but the next one.
    package static let modulesDisabled = "kernel.modules_disabled"

    // MARK: Words of the kernel's command line

    /// No `lsm=` among them: there is one list, the image's (`Builder.commandLine`).
    private static let parameters: [HardeningSetting] = [
        parameter("slab_nomerge", "", "unlike objects share no memory"),
        parameter("init_on_alloc", "1", "memory is zeroed when it is handed out"),
        parameter("page_alloc.shuffle", "1", "free pages are in random order"),
        parameter("randomize_kstack_offset", "on", "the kernel's stack begins at random"),
        parameter("vsyscall", "none", "no page at an address that everybody knows"),
        parameter("debugfs", "off", "no debug file system"),
        parameter("init_on_free", nil, strict: "1", "memory is zeroed when it is given back"),
        parameter("vdso32", nil, strict: "0", "no kernel page in 32-bit programs"),
        parameter(
            "ia32_emulation", nil, strict: "0", "no 32-bit programs", need: .version(6, 7)),
        parameter("oops", nil, strict: "panic", "a damaged kernel gives up, from its first moment"),
        parameter("pti", nil, strict: "on", "the kernel's memory is out of sight of programs"),
        parameter("mitigations", nil, strict: "auto", "mitigations of the CPU's faults are on"),
        parameter("module.sig_enforce", nil, strict: "1", "only signed modules"),
        parameter(
            "lockdown", nil, strict: "confidentiality", "root cannot read or change the kernel"),
    ]

    // MARK: Modules that are never loaded

    private static let modules =
        blocked(
            [
                "dccp", "sctp", "rds", "tipc", "n_hdlc", "ax25", "netrom", "rose", "x25",
                "appletalk", "ipx", "decnet", "can", "atm",
            ], "a protocol that few need")
        + blocked(
            [
                "cramfs", "freevxfs", "jffs2", "hfs", "hfsplus", "udf", "adfs", "affs", "bfs",
                "befs", "efs", "hpfs", "jfs", "minix", "nilfs2", "qnx4", "qnx6", "sysv", "ufs",
                "f2fs", "gfs2", "ksmbd",
            ], "a file system that few need")
        + blocked(
            ["vivid", "hwpoison_inject", "notifier_error_inject", "ublk_drv"],
            "made for tests, or rarely needed")
        + blocked(
            [
                "bluetooth", "btusb", "uvcvideo", "videodev", "snd", "firewire_core",
                "thunderbolt", "usb_storage",
            ], strict: "a device that no microVM has")
        + blocked(["msr", "cpuid"], strict: "registers of the CPU are not for programs")
}

// MARK: - Short words for the table

private func sysctl(
    _ name: String, _ standard: String?, strict: String? = nil, _ reason: String,
    need: KernelNeed? = nil
) -> HardeningSetting {
    HardeningSetting(
        kind: .sysctl, name: name, standard: standard, strict: strict ?? standard, reason: reason,
        need: need)
}

private func parameter(
    _ name: String, _ standard: String?, strict: String? = nil, _ reason: String,
    need: KernelNeed? = nil
) -> HardeningSetting {
    HardeningSetting(
        kind: .parameter, name: name, standard: standard, strict: strict ?? standard,
        reason: reason, need: need)
}

/// A setting for the interfaces that are there, and for those that come.
private func both(
    _ family: String, _ name: String, _ value: String, _ reason: String
) -> [HardeningSetting] {
    ["all", "default"].map { sysctl("net.\(family).conf.\($0).\(name)", value, reason) }
}

private func blocked(_ names: [String], _ reason: String) -> [HardeningSetting] {
    names.map {
        HardeningSetting(
            kind: .module, name: $0, standard: "blocked", strict: "blocked", reason: reason,
            need: nil)
    }
}

private func blocked(_ names: [String], strict reason: String) -> [HardeningSetting] {
    names.map {
        HardeningSetting(
            kind: .module, name: $0, standard: nil, strict: "blocked", reason: reason, need: nil)
    }
}
