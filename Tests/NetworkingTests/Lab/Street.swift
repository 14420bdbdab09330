// SPDX-License-Identifier: Apache-2.0
import Fleets

/// One VM, the VM beside it and their gateway.
struct Street {
    static let stranger = "02:00:00:00:09:09"

    let mac: String
    let own4: String
    let own6: String
    let neighbour: (mac: String, v4: String, v6: String)
    let router: (mac: String, v4: String, v6: String)

    init(_ number: Int, network: String) {
        mac = "02:00:00:00:0\(number):02"
        own4 = "10.\(number).0.2"
        own6 = "fd00:6d76:6d:\(number)::2"
        neighbour = (
            "02:00:00:00:0\(number):03", "10.\(number).0.3", "fd00:6d76:6d:\(number)::3"
        )
        router = (
            "\(Derived.gatewayMAC(fleet: "home", network: network))", "10.\(number).0.1",
            "fd00:6d76:6d:\(number)::1"
        )
    }

    /// The address that the kernel makes from the MAC.
    var link: String { "fe80::ff:fe00:\(mac.split(separator: ":")[4].drop { $0 == "0" })02" }

    /// To all, so that a bridge hands them to everybody who may see them.
    var honest: [Frame] {
        [
            .udp(mac: mac, own4, 1, router.v4, 2), .udp(mac: mac, own6, 1, router.v6, 2),
            .udp(mac: mac, link, 1, "ff02::1", 2), .ping(mac: mac, own4, router.v4),
            .ping(mac: mac, own6, router.v6),
            .tcp(mac: mac, own4, 1, router.v4, 22), .tcp(mac: mac, own6, 1, router.v6, 22),
            .arpRequest(mac: mac, sender: own4, asking: router.v4),
            .arpRequest(mac: mac, sender: "0.0.0.0", asking: own4),
            .arpReply(mac: mac, sender: own4, to: Frame.broadcast, router.v4),
            .gratuitousARP(mac: mac, own4),
            .neighbourSolicitation(mac: mac, own6, asking: router.v6),
            .neighbourSolicitation(mac: mac, link, asking: router.v6),
            .neighbourSolicitation(mac: mac, "::", asking: own6),
            .neighbourAdvertisement(mac: mac, own6, about: own6),
            .neighbourAdvertisement(mac: mac, link, about: link),
            .routerSolicitation(mac: mac, link), .dhcpDiscover(mac: mac),
        ]
    }

    /// Dropped as `spoofed`.
    var spoofed: [Frame] {
        senders + neighbours + [
            honest[0].tagged(7), honest[7].tagged(7), honest[0].tagged(0),
            .bpdu(mac: mac), .other(mac: mac, type: 0x88CC), .other(mac: mac, type: 0x8863),
            .other(mac: mac, type: 0x8847), .other(mac: mac, type: 0x0842),
        ]
    }

    private var senders: [Frame] {
        [
            .udp(mac: Street.stranger, own4, 1, router.v4, 2).called("strange mac"),
            .udp(mac: neighbour.mac, own4, 1, router.v4, 2).called("neighbour's mac"),
            .udp(mac: router.mac, own4, 1, router.v4, 2).called("router's mac"),
            .udp(mac: Street.stranger, own6, 1, router.v6, 2).called("strange mac, ipv6"),
            .udp(mac: mac, neighbour.v4, 1, router.v4, 2),
            .udp(mac: mac, router.v4, 1, neighbour.v4, 2),
            .udp(mac: mac, "192.168.77.5", 1, router.v4, 2),
            .udp(mac: mac, "0.0.0.0", 1, router.v4, 2),
            .udp(mac: mac, "127.0.0.1", 1, router.v4, 2),
            .ping(mac: mac, neighbour.v4, router.v4),
            .tcp(mac: mac, neighbour.v4, 1, Lab.Address.server, 80),
            .udp(mac: mac, neighbour.v6, 1, router.v6, 2),
            .udp(mac: mac, router.v6, 1, neighbour.v6, 2),
            .udp(mac: mac, "2001:db8:66::1", 1, router.v6, 2),
            .udp(mac: mac, "fe80::1", 1, router.v6, 2), .udp(mac: mac, "::", 1, router.v6, 2),
            .ping(mac: mac, neighbour.v6, router.v6),
            .dhcpDiscover(mac: Street.stranger, client: mac).called("dhcp with a strange mac"),
        ]
    }

    /// Who says that an address is elsewhere than it is.
    private var neighbours: [Frame] {
        [
            .arpRequest(mac: mac, sender: neighbour.v4, asking: router.v4),
            .arpRequest(mac: mac, claimed: Street.stranger, sender: own4, asking: router.v4)
                .called("arp with another mac inside"),
            .arpReply(mac: mac, sender: router.v4, to: Frame.broadcast, neighbour.v4),
            .arpReply(
                mac: mac, claimed: neighbour.mac, sender: neighbour.v4, to: Frame.broadcast,
                router.v4),
            .arpReply(mac: mac, sender: "0.0.0.0", to: Frame.broadcast, router.v4),
            .gratuitousARP(mac: mac, router.v4), .gratuitousARP(mac: mac, neighbour.v4),
            .neighbourSolicitation(mac: mac, neighbour.v6, asking: router.v6),
            .neighbourAdvertisement(mac: mac, own6, about: router.v6),
            .neighbourAdvertisement(mac: mac, own6, about: neighbour.v6),
            .neighbourAdvertisement(mac: mac, link, about: router.v6),
            .neighbourAdvertisement(mac: mac, link, about: "fe80::1"),
            .neighbourAdvertisement(mac: mac, router.v6, about: router.v6),
        ]
    }

    /// Dropped as `rogue-server`.
    var rogue: [Frame] {
        [
            .routerAdvertisement(mac: mac, link, prefix: "fd00:6d76:6d:99::"),
            .redirect(mac: mac, link, about: Lab.Address.server6, through: link),
            .dhcpOffer(mac: mac, server: own4, client: neighbour.mac, offered: "10.9.9.9"),
            .dhcpv6Server(mac: mac, link), .dhcpv6Server(mac: mac, own6),
            // Clients look at their own port, and at no server's.
            .udp(mac: mac, own4, 1067, "255.255.255.255", 68).called("dhcp from another port"),
            .udp(mac: mac, link, 1547, "ff02::1", 546).called("dhcpv6 from another port"),
        ]
    }
}
