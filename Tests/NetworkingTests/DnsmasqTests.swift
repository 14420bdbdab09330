// SPDX-License-Identifier: Apache-2.0
import Fleets
import Testing

@testable import Networking

@Suite struct DnsmasqTests {
    private func servers() throws -> [String: Dnsmasq] {
        let all = Dnsmasq.all(for: try Sample.rich(), below: "/run/x")
        return Dictionary(uniqueKeysWithValues: all.map { ($0.network.name, $0) })
    }

    @Test func aServerIsForOneNetworkOfOursAlone() throws {
        #expect(Set(try servers().keys) == ["web", "db", "all", "none"])
    }

    @Test func theConfigurationSaysAllAndNothingOfTheSystems() throws {
        let web = try #require(try servers()["web"])
        #expect(
            web.configuration == """
                keep-in-foreground
                pid-file=/run/x/web/dnsmasq.pid
                user=nobody
                group=nogroup
                interface=\(web.link)
                except-interface=lo
                bind-interfaces
                no-hosts
                domain=web.internal
                local=/internal/
                domain-needed
                hostsdir=/run/x/web/hosts
                dhcp-hostsdir=/run/x/web/dhcp
                dhcp-leasefile=/run/x/web/leases/leases
                dhcp-authoritative
                dhcp-fqdn
                quiet-dhcp
                quiet-dhcp6
                quiet-ra
                dhcp-range=10.1.0.0,static,255.255.255.0,12h
                dhcp-option=option:router,10.1.0.1
                dhcp-option=option:dns-server,10.1.0.1
                dhcp-option=option:domain-search,web.internal
                enable-ra
                dhcp-range=fd00:6d76:6d:1::,static,off-link,64
                ra-param=\(web.link),mtu:1500,60,600
                resolv-file=/etc/resolv.conf

                """)
    }

    @Test func aNetworkThatReachesNothingAsksNobody() throws {
        let none = try #require(try servers()["none"])
        #expect(none.configuration.hasSuffix("no-resolv\n"))
        #expect(!none.configuration.contains("server="))
    }

    @Test func eachVMHasAFileOfNamesAndOneOfAddresses() throws {
        let web = try #require(try servers()["web"])
        #expect(
            web.hosts["web"] == "10.1.0.2 web.web.internal web\n"
                + "fd00:6d76:6d:1::2 web.web.internal web\n")
        #expect(
            web.leases == ["web-0": "02:00:00:00:00:02,10.1.0.2,[fd00:6d76:6d:1::2],web,infinite\n"]
        )
        // The one that it may reach has its name here, and not the other way round.
        #expect(web.hosts["db"] == "10.2.0.2 db.db.internal\n")
        #expect(try servers()["db"]?.hosts["web"] == nil)
    }

    @Test func anotherConfigurationHasAnotherFile() throws {
        let (web, db) = (try #require(try servers()["web"]), try #require(try servers()["db"]))
        #expect(web.file != db.file && web.file.hasPrefix("/run/x/web/"))
    }
}
