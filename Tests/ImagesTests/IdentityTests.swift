// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Images

@Suite struct IdentityTests {
    private var identity: GuestIdentity {
        var identity = GuestIdentity(
            hostname: "web", machineID: "0123456789abcdef0123456789abcdef", image: "abc",
            hostKey: "-----BEGIN KEY-----\nk\\ey\n-----END KEY-----\n")
        identity.authorizedKeys = ["ssh-ed25519 AAAA me"]
        identity.execKey = "ssh-ed25519 BBBB exec"
        identity.users = [.init(name: "alice", sudo: true, groups: ["docker"], uid: 3000)]
        identity.timezone = "Europe/Berlin"
        identity.hardening.sysctl = "kernel.sysrq=0\n"
        identity.hardening.lateSysctl = "kernel.modules_disabled=1\n"
        identity.hardening.modprobe = "install sctp /bin/false\n"
        identity.tcpPorts = [443, 80, 80]
        identity.udpPorts = [53]
        identity.interfaces = [.user(mac: "02:00:00:00:00:01")]
        identity.dns = ["10.0.2.3"]
        identity.mounts = [
            Mount(what: "a-tag", path: "/srv/my cache", type: "virtiofs", options: ["ro"]),
            Mount(what: "vol", path: "/var/lib/100%", type: "ext4", grows: true),
        ]
        return identity
    }

    @Test func text() throws {
        let entry = try #require(try identity.firmwareEntries().first)
        #expect(entry.name == "opt/org.martlet/identity")
        #expect(
            entry.text == """
                martlet-identity 1
                image abc
                timezone Europe/Berlin
                folder /srv/my cache
                address 02:00:00:00:00:01 10.0.2.15/24 10.0.2.2
                file keys/admin 0644 ssh-ed25519 AAAA me\\n
                file keys/user 0644 ssh-ed25519 AAAA me\\n
                file keys/alice 0644 \

                file sshd.conf 0600 AllowUsers admin user alice\\nPermitRootLogin no\\n
                file ssh_host_ed25519_key 0600 -----BEGIN KEY-----\\nk\\\\ey\\n-----END KEY-----\\n
                file exec.keys 0600 ssh-ed25519 BBBB exec\\n
                file hosts 0644 127.0.0.1 localhost\\n127.0.1.1 web\\n::1 localhost ip6-localhost ip6-loopback\\n
                file resolv.conf 0644 nameserver 10.0.2.3\\n
                file firewall.nft 0600 table inet martlet\\ndelete table inet martlet\\n\
                table inet martlet {\\n    chain input {\\n        type filter hook input priority filter; policy drop;\\n\
                        ct state established,related accept\\n        iif lo accept\\n\
                        ct state invalid drop\\n        meta l4proto { icmp, icmpv6 } accept\\n\
                        udp dport { 68, 546 } accept\\n        tcp dport { 22, 80, 443 } accept\\n\
                        udp dport { 53 } accept\\n    }\\n}\\n
                file sysctl.conf 0644 kernel.sysrq=0\\n
                file sysctl-late.conf 0644 kernel.modules_disabled=1\\n
                file modprobe.conf 0644 install sctp /bin/false\\n
                unit srv-my\\x20cache.mount local-fs.target [Unit]\\nDescription=/srv/my cache\\n\
                [Mount]\\nWhat=a-tag\\nWhere=/srv/my cache\\nType=virtiofs\\nOptions=ro\\nTimeoutSec=30\\n
                unit var-lib-100\\x25.mount local-fs.target [Unit]\\nDescription=/var/lib/100%%\\n\
                Wants=systemd-growfs@var-lib-100\\\\x25.service\\n\
                [Mount]\\nWhat=vol\\nWhere=/var/lib/100%%\\nType=ext4\\nOptions=\\nTimeoutSec=300\\n
                user alice 3000 sudo,docker
                end

                """)
    }

    @Test func credentials() throws {
        var identity = identity
        identity.interfaces = [
            .dhcp(mac: "02:00:00:00:00:01"),
            .fixed(
                mac: "02:00:00:00:00:02", addresses: ["10.1.0.2/24", "fd00::2/64"],
                gateways: ["10.1.0.1"], metric: 2000),
        ]
        identity.credentials = ["HOST-key": [1, 2]]
        let entries = try identity.firmwareEntries()
        let prefix = "opt/io.systemd.credentials/"
        #expect(
            entries.dropFirst().map(\.name) == [
                prefix + "system.hostname", prefix + "system.machine_id",
                prefix + "network.network.10-martlet", prefix + "network.network.11-martlet",
                prefix + "HOST-key",
            ])
        #expect(
            entries[3].text
                == "[Match]\nMACAddress=02:00:00:00:00:01\n[Network]\nDHCP=yes\n"
                + "[DHCPv4]\nUseHostname=no\nUseTimezone=no\n")
        #expect(
            entries[4].text == """
                [Match]
                MACAddress=02:00:00:00:00:02
                [Network]
                IPv6AcceptRA=no
                KeepConfiguration=static
                IPv6DuplicateAddressDetection=0
                Address=10.1.0.2/24
                Address=fd00::2/64
                [Route]
                Gateway=10.1.0.1
                Metric=2000

                """)
        // Only the first card's plain address is set before networkd runs.
        #expect(!entries[0].text.contains("address "))
    }

    @Test func rootAndConsole() throws {
        var identity = identity
        identity.allowsRoot = true
        identity.rootPasswordHash = "$6$salt$hash"
        let text = try #require(try identity.firmwareEntries().first).text
        #expect(text.contains("AllowUsers admin user alice root\\n"))
        #expect(text.contains("\nfile keys/root 0644 ssh-ed25519 AAAA me\\n\n"))
        #expect(text.contains("\nfile console-login 0600 \n"))
        #expect(text.hasSuffix("\npassword root $6$salt$hash\nend\n"))
    }

    @Test(arguments: ["", "two words", "line\nbreak"])
    func refusesBadHostnames(name: String) {
        var identity = identity
        identity.hostname = name
        #expect(throws: IdentityError.badValue(what: "hostname", value: name)) {
            try identity.firmwareEntries()
        }
    }

    @Test(arguments: ["", "/srv/a\nend"])
    func refusesBadMountPoints(path: String) {
        var identity = identity
        identity.mounts = [Mount(what: "a", path: path, type: "ext4")]
        #expect(throws: IdentityError.badValue(what: "mount point", value: path)) {
            try identity.firmwareEntries()
        }
    }

    /// As `systemd-escape --path` has it.
    @Test(arguments: [
        ("/", "-"), ("/srv", "srv"), ("/srv/data", "srv-data"), ("/srv/my-data", "srv-my\\x2ddata"),
        ("/.hidden/.x", "\\x2ehidden-.x"), ("/srv/ä b", "srv-\\xc3\\xa4\\x20b"),
        ("/srv/a:b_c.d", "srv-a:b_c.d"), ("/srv/a\\b\u{1}", "srv-a\\x5cb\\x01"),
        ("/a@b", "a\\x40b"),
    ])
    func unitNamesAreThoseOfSystemd(path: String, name: String) {
        #expect(systemdEscaped(path: path) == name)
    }

    @Test func refusesLongCredentials() {
        var identity = identity
        let name = String(repeating: "n", count: 29)
        identity.credentials = [name: []]
        #expect(throws: IdentityError.longName(name)) { try identity.firmwareEntries() }
    }

    @Test func uidsDependOnNamesAlone() {
        let names = (0..<500).map { GuestIdentity.User(name: "user\($0)") }
        let uids = GuestIdentity.uids(names)
        #expect(Set(uids.values).count == 500)
        #expect(uids.values.allSatisfy { (20_000..<60_000).contains($0) })
        #expect(GuestIdentity.uids(names.reversed()) == uids)
        #expect(GuestIdentity.uids([.init(name: "bob")])["bob"] == 24_244)
        // A number that is given is never derived for somebody else.
        #expect(
            GuestIdentity.uids([.init(name: "bob"), .init(name: "eve", uid: 24_244)])["bob"]
                == 24_245)
    }
}
