// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

/// Reads a fleet and compares what is said about it: each `LINE:COLUMN: path: message`, or its start.
func expectMistakes(_ text: String, _ expected: [String]) {
    let file = FleetFile.parse(text)
    let found = file.diagnostics.map { String($0.description.dropFirst("fleet.yaml:".count)) }
    #expect(found.count == expected.count, "found: \(found.joined(separator: "\n"))")
    for (found, expected) in zip(found, expected) {
        #expect(found.hasPrefix(expected), "\(found)")
    }
    #expect((file.fleet == nil) == !file.errors.isEmpty)
}

/// Each row is a fleet and what is said about it.
@Suite struct ValidationTests {
    @Test(arguments: [
        ("memory: 64MiB", ["1:21: vms.a.memory: a guest needs 112MiB to boot"]),
        (
            "memory: { min: 2GiB, max: 1GiB }",
            ["1:21: vms.a.memory: 'min' (2GiB) is above 'max' (1GiB)"]
        ),
        ("memory: 200000KiB", ["1:21: vms.a.memory: 200000KiB is no whole number of MiB"]),
        ("memory: { max: 1GiB }", ["1:21: vms.a.memory: 'min' is required"]),
        ("vcpu: 0", ["1:19: vms.a.vcpu: a VM has 1 to 1024 CPUs"]),
        ("disk: 1MiB", ["1:19: vms.a.disk: /var does not fit on 1MiB"]),
        ("host: far", ["1:19: vms.a.host: no host 'far'"]),
        ("image: cor", ["1:20: vms.a.image: no image 'cor'; did you mean 'core'?"]),
        (
            "image: { from: core, disk: x }",
            ["1:20: vms.a.image: only one of 'from', 'oci' and 'disk'"]
        ),
        ("image: { oci: nginx }", ["1:27: vms.a.image.oci: has no digest"]),
        ("image: { oci: \"nginx@sha256:12\" }", ["1:27: vms.a.image.oci: the digest is"]),
        (
            "image: { packages: [\"No Such\"] }",
            ["1:33: vms.a.image.packages[0]: 'No Such' is no name of a Debian package"]
        ),
        (
            "image: { files: { etc/motd: x } }",
            ["1:41: vms.a.image.files.etc/motd: expected a path that starts with '/'"]
        ),
        (
            "image: { disk: x.qcow2 }, users: [{ name: bob }]",
            ["1:46: vms.a.users: a foreign disk boots its own system"]
        ),
        ("secureBoot: true", ["1:25: vms.a.secureBoot: secure boot is a matter of UEFI"]),
        (
            "machine: microvm, tpm: true, oemStrings: [x]",
            [
                "1:36: vms.a.tpm: the machine microvm has no TPM; use 'machine: q35'",
                "1:54: vms.a.oemStrings: the machine microvm has no SMBIOS",
            ]
        ),
        (
            "machine: microvm, devices: [{ pci: \"0000:01:00.0\" }]",
            ["1:41: vms.a.devices[0]: the machine microvm has no root ports"]
        ),
        (
            "hypervisor: firecracker, accelerator: tcg, interfaces: [], shares: [{ source: /d, mount: /d }], volumes: [{ name: v, size: 1GiB }], tpm: true",
            [
                "1:51: vms.a.accelerator: firecracker needs KVM",
                "1:80: vms.a.shares: firecracker has no virtiofs; use a volume",
                "1:119: vms.a.volumes[0]: firecracker reads raw disks only",
                "1:150: vms.a.tpm: firecracker has no TPM",
            ]
        ),
        (
            "hypervisor: firecracker",
            ["1:11: vms.a.interfaces[0]: firecracker has no 'user' networking"]
        ),
        (
            "hypervisor: cloud-hypervisor, machine: q35, interfaces: [], devices: [{ usb: \"046d:c52b\" }]",
            [
                "1:52: vms.a.machine: 'machine' is a setting of QEMU",
                "1:83: vms.a.devices[0]: cloud-hypervisor passes no USB",
            ]
        ),
        (
            "warm: true, shares: [{ source: /d, mount: /d }]",
            ["1:19: vms.a.warm: a memory snapshot cannot hold shares"]
        ),
        ("with: { x: 1 }", ["1:19: vms.a.with: 'with' holds the parameters"]),
        ("boot: { deadline: 1s }", ["1:31: vms.a.boot.deadline: no guest boots within 1s"]),
        (
            "limits: { tasks: 1, memoryOverhead: 1MiB }",
            ["1:30: vms.a.limits.tasks: a VM's own process", "1:49: vms.a.limits.memoryOverhead"]
        ),
        (
            "after: [a, b]",
            [
                "1:21: vms.a.after[0]: a VM cannot start after itself",
                "1:24: vms.a.after[1]: no VM 'b'",
            ]
        ),
    ])
    func machine(text: String, expected: [String]) {
        expectMistakes("vms: { a: { \(text) } }", expected)
    }

    @Test(arguments: [
        ("volumes: [{ name: v }]", ["1:23: vms.a.volumes[0]: give either 'size' or 'device'"]),
        (
            "volumes: [{ name: data, size: 1GiB }]",
            ["1:31: vms.a.volumes[0].name: 'data' is a disk that every VM has"]
        ),
        (
            "volumes: [{ name: a-name-that-is-too-long, size: 1GiB }]",
            ["1:31: vms.a.volumes[0].name: 'a-name-that-is-too-long' is no name"]
        ),
        (
            "volumes: [{ name: v, size: 100MiB, filesystem: xfs }]",
            ["1:40: vms.a.volumes[0].size: xfs needs at least 300MiB"]
        ),
        (
            "volumes: [{ name: v, size: 1GiB, mount: /usr/x }]",
            ["1:53: vms.a.volumes[0].mount: /usr/x cannot be used: /usr belongs to the system"]
        ),
        (
            "volumes: [{ name: v, size: 1GiB, mount: /var }]",
            ["1:53: vms.a.volumes[0].mount: /var belongs to the guest's system"]
        ),
        (
            "volumes: [{ name: v, size: 1GiB, mount: /srv/../x/ }]",
            [
                "1:53: vms.a.volumes[0].mount: write the path without '.', '..', '//' and a '/' at the end: /x"
            ]
        ),
        (
            "volumes: [{ name: v, size: 1GiB, mount: srv }]",
            ["1:53: vms.a.volumes[0].mount: expected a path that starts with '/'"]
        ),
        (
            "volumes: [{ name: v, size: 1GiB, mount: /x }, { name: v, size: 1GiB, mount: /x }]",
            [
                "1:67: vms.a.volumes[1].name: the VM has a volume 'v' already",
                "1:89: vms.a.volumes[1].mount: /x is the mount point of volume 'v' already",
            ]
        ),
        (
            "volumes: [{ name: v, device: /tmp/x }]",
            ["1:42: vms.a.volumes[0].device: expected a block device below /dev"]
        ),
        ("shares: [{ source: /, mount: /x }]", ["1:32: vms.a.shares[0].source: sharing all of /"]),
        (
            "shares: [{ source: /run/secrets/x, mount: /x }]",
            ["1:32: vms.a.shares[0].source: /run/secrets/x cannot be used"]
        ),
        (
            "shares: [{ source: /d, mount: /x/y }, { source: /e, mount: /x-y }]",
            ["1:51: vms.a.shares[1]: the VM has a share with the tag 'x-y' already"]
        ),
        (
            "shares: [{ source: /d, mount: /x, create: { mode: 755, owner: A } }]",
            ["1:75: vms.a.shares[0].create.owner: expected a user of the host"]
        ),
        (
            "shares: [{ source: /d, mount: /x, create: { mode: 999 } }]",
            ["1:63: vms.a.shares[0].create.mode: expected permissions in octal"]
        ),
        (
            "shares: [{ source: /run/../etc, mount: /x }]",
            ["1:32: vms.a.shares[0].source: write the"]
        ),
        (
            "shares: [{ source: /run/agenix.d/1, mount: /x }, { source: /var/lib, mount: /y }]",
            [
                "1:32: vms.a.shares[0].source: /run/agenix.d/1 cannot be used: /run/agenix.d",
                "1:72: vms.a.shares[1].source: sharing all of /var/lib",
            ]
        ),
        ("shares: [{ source: /run/secretsx, mount: /x }]", []),
        (
            "shares: [{ source: /d, mount: /x }, { source: /d/e, mount: /y, readOnly: true }]",
            [
                "1:59: warning: vms.a.shares[1].source: the VM has these files through its share of /d"
            ]
        ),
        (
            "shares: [{ source: /d, mount: '/x\\y', tag: t }]",
            ["1:43: vms.a.shares[0].mount: choose a shorter mount point"]
        ),
        (
            "shares: [{ source: /d, tag: d, mount: /\(String(repeating: "-", count: 60)) }]",
            ["1:51: vms.a.shares[0].mount: choose a shorter mount point"]
        ),
        (
            "machine: microvm, shares: [{ source: /d, mount: /x }]",
            ["1:39: vms.a.shares: shares hang on the machine microvm"]
        ),
        (
            "snapshots: { schedule: sometimes }",
            ["1:36: vms.a.snapshots.schedule: expected hourly, daily"]
        ),
        (
            "snapshots: { schedule: 25:00 }",
            ["1:36: vms.a.snapshots.schedule: expected hourly, daily"]
        ),
        ("snapshots: { schedule: \"*/5 3 * 1-6 1,2\" }", []),
        ("snapshots: { schedule: \"0 24 * * *\" }", ["1:36: vms.a.snapshots.schedule: expected"]),
        ("snapshots: { keep: { daily: 0 } }", ["1:32: vms.a.snapshots.keep: keeps nothing at all"]),
        (
            "backups: { encrypt: [x], verify: weekly }",
            [
                "1:34: vms.a.backups.encrypt[0]: expected an age recipient",
                "1:46: vms.a.backups.verify: an encrypted backup can be verified only with its key",
            ]
        ),
    ])
    func storage(text: String, expected: [String]) {
        expectMistakes("vms: { a: { \(text) } }", expected)
    }

    /// Two VMs with shares of these directories, each writable but where it ends in `:ro`.
    @Test(arguments: [
        ("/d", "/d", "vms.a can write to /d as well (fleet.yaml:2), so each of the two"),
        ("/d", "/d/e", "vms.a can write to /d as well"),
        ("/d/e", "/d", "vms.a can write to /d/e as well"),
        ("/d", "/d/e:ro", "vms.b reads what vms.a writes: /d is shared with both"),
        ("/d/e/f:ro", "/d", "vms.a reads what vms.b writes: /d/e/f is shared with both"),
        ("/d:ro", "/d:ro", nil), ("/d", "/de", nil), ("/d/e", "/d/f", nil),
    ])
    func sharesOfTwoVMsThatMeet(first: String, second: String, expected: String?) {
        func share(_ text: String) -> String {
            let parts = text.split(separator: ":")
            return "shares: [{ source: \(parts[0]), mount: /x, readOnly: \(parts.count > 1) }]"
        }
        expectMistakes(
            "vms:\n  a: { \(share(first)) }\n  b: { \(share(second)) }",
            expected.map { ["3:27: warning: vms.b.shares[0].source: " + $0] } ?? [])
        // One that is not there has no files, and another host has others.
        for other in ["enable: false", "host: far"] {
            expectMistakes(
                "hosts: { far: { ssh: me@far } }\nvms:\n  a: { \(other), \(share(first)) }\n"
                    + "  b: { \(share(second)) }", [])
        }
    }

    @Test(arguments: [
        ("users: [{ name: root }]", ["1:29: vms.a.users[0].name: every guest has 'root'"]),
        (
            "users: [{ name: sshd }]",
            ["1:29: vms.a.users[0].name: 'sshd' is an account of the guest's system"]
        ),
        ("users: [{ name: Bob }]", ["1:29: vms.a.users[0].name: 'Bob' is no login name"]),
        (
            "users: [{ name: bob }, { name: bob }]",
            ["1:44: vms.a.users[1].name: the VM has a user 'bob' already"]
        ),
        (
            "users: [{ name: bob, groups: [sudo, shadow, \"x y\"] }]",
            [
                "1:43: vms.a.users[0].groups[0]: write 'sudo: true'",
                "1:49: vms.a.users[0].groups[1]: the group 'shadow'",
                "1:57: vms.a.users[0].groups[2]: 'x y' is no name of a group",
            ]
        ),
        (
            "ssh: { user: bob }",
            ["1:26: vms.a.ssh.user: no account 'bob'; known: admin, root, user"]
        ),
        (
            "ssh: { authorizedKeys: [abc] }",
            ["1:37: vms.a.ssh.authorizedKeys[0]: expected a public key"]
        ),
        (
            "ssh: { authorizedKeys: [\"ssh-ed25519 AAAA me\"] }",
            ["1:37: vms.a.ssh.authorizedKeys[0]: the key is cut off"]
        ),
        ("timezone: \"../etc\"", ["1:23: vms.a.timezone: expected a name such as Europe/Berlin"]),
        ("timezone: America/Argentina/Buenos_Aires", []),
        (
            "kernel: { parameters: [\"a b\", init=/bin/sh], modules: [\"x y\"] }",
            [
                "1:36: vms.a.kernel.parameters[0]: a kernel parameter is one word",
                "1:43: vms.a.kernel.parameters[1]: 'init=' is how Martlet boots",
                "1:68: vms.a.kernel.modules[0]",
            ]
        ),
        (
            "hardening: { confine: { protectProc: x } }",
            ["1:50: vms.a.hardening.confine.protectProc: 'protectProc' is no setting of a unit"]
        ),
        (
            "hardening: { exceptions: [kernel.sysrk, module:sctp, sctp, kernel.modules_disabled] }",
            [
                "1:39: vms.a.hardening.exceptions[0]: no setting 'kernel.sysrk'; did you mean 'kernel.sysrq'?",
                "1:66: vms.a.hardening.exceptions[2]: no setting 'sctp'; names look like kernel.sysrq, module:sctp",
                "1:72: vms.a.hardening.exceptions[3]: 'kernel.modules_disabled' is set by 'hardening.kernel: strict', and this VM has standard",
            ]
        ),
        (
            "hardening: { kernel: strict, exceptions: [kernel.modules_disabled, parameter:pti] }",
            []
        ),
        (
            "hardening: { kernel: off, exceptions: [kernel.sysrq] }",
            [
                "1:52: warning: vms.a.hardening.exceptions[0]: 'kernel.sysrq' is no exception where"
            ]
        ),
        (
            "image: { disk: /d, firmware: uefi }, hardening: { kernel: strict }",
            ["1:71: vms.a.hardening.kernel: a foreign disk boots its own system"]
        ),
        (
            "credentials: { a-name-that-is-far-too-long: { text: x } }",
            [
                "1:57: vms.a.credentials.a-name-that-is-far-too-long: 'HOST-a-name-that-is-far-too-long' has 32 characters"
            ]
        ),
        (
            "credentialPrefix: \"\", credentials: { system.hostname: { text: x } }",
            [
                "1:67: vms.a.credentials.system.hostname: 'system.hostname' is how the guest gets its identity"
            ]
        ),
        (
            "credentials: { k: { secret: nope } }",
            ["1:41: vms.a.credentials.k.secret: no secret 'nope'"]
        ),
        (
            "credentials: { k: {} }",
            ["1:31: vms.a.credentials.k: give either 'secret' or 'text'"]
        ),
        (
            "health: [{ tcp: 80, retries: 0 }]",
            ["1:22: vms.a.health[0]: 'retries' must be at least 1"]
        ),
        ("health: { dns: \"-x\" }", ["1:28: vms.a.health[0].dns: expected a host name"]),
    ])
    func guest(text: String, expected: [String]) {
        expectMistakes("vms: { a: { \(text) } }", expected)
    }

    @Test(arguments: [
        (
            "images: { a: { from: b }, b: { from: c }, c: { from: a } }",
            ["1:22: images.a.from: builds on itself: a → b → c → a"]
        ),
        ("images: { a: { from: a } }", ["1:22: images.a.from: builds on itself: a → a"]),
        ("images: { core: {} }", ["1:17: images.core: 'core' is a built-in image"]),
        (
            "images: { a: { disk: d }, b: { from: a } }",
            ["1:38: images.b.from: 'a' is a foreign disk"]
        ),
        (
            "images: { a: { firmware: uefi } }",
            ["1:14: images.a: 'firmware: uefi' is for a foreign 'disk'"]
        ),
        (
            "secrets: { a: {}, b: { file: /x, age: /y }, c: { sops: /x },"
                + " d: { sops: /x, key: y, identity: /z }, e: { file: /x, identity: /z } }",
            [
                "1:15: secrets.a: give exactly one source",
                "1:22: secrets.b: give exactly one source",
                "1:48: secrets.c: 'sops' and 'key' belong together",
                "1:104: secrets.e: 'identity' belongs to 'age' or 'sops'",
            ]
        ),
        (
            "publishing: { email: me, acme: \"http://x\", listen: [\"443\"] }",
            [
                "1:22: publishing.email: expected an e-mail address", "1:32: publishing.acme",
                "1:53: publishing.listen[0]: expected [address]:port",
            ]
        ),
        ("hosts: { far: { ssh: \"a b\" } }", ["1:22: hosts.far.ssh: expected user@host"]),
        ("advertise: all", ["1:12: advertise: expected one of none, tailscale, found 'all'"]),
    ])
    func sections(text: String, expected: [String]) { expectMistakes(text + "\nvms: {}", expected) }

    @Test func order() {
        expectMistakes(
            "vms:\n  a: { after: [b] }\n  b: { after: [c] }\n  c: { after: [a] }\n  d: { after: [e] }\n  e: { enable: false }",
            [
                "2:15: vms.a.after: waits for itself: a → b → c → a",
                "5:16: vms.d.after[0]: 'e' has 'enable: false' and is never healthy",
            ])
    }

    /// A mistake in one key does not hide another in the same VM.
    @Test func allAtOnce() {
        expectMistakes(
            "vms:\n  a: { ports: [\"80:80\"] }\n  b: { memory: lots, ports: [\"80:80\"] }",
            [
                "3:16: vms.b.memory: expected a size",
                "3:30: vms.b.ports[0]: the host port 80/tcp belongs",
            ])
    }
}
