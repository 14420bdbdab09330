// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

/// These values stand on hosts and in guests: a change of any of them breaks fleets in use.
@Suite struct DerivationTests {
    @Test func vectors() {
        #expect(
            Derived.mac(fleet: "home", vm: "web", interface: 0).description == "76:71:98:fb:e6:13")
        #expect(
            Derived.mac(fleet: "home", vm: "web", interface: 1).description == "0a:a9:48:0b:2b:59")
        #expect(Derived.cid(fleet: "home", vm: "web") == 2_884_618_294)
        #expect(
            Derived.uuid(fleet: "home", vm: "web")?.description
                == "a3003c0b-7171-8ff6-8f10-03aa219f6977")
        #expect(Derived.tap(fleet: "home", vm: "web", interface: 0) == "mv-web-ievvkw")
        #expect(Derived.tap(fleet: "home", vm: "very-long-name", interface: 1) == "mv-very-ewrucs")
        #expect(
            Derived.subnet6(fleet: "home", network: "web").description == "fd26:6abf:c958:4549::/64"
        )
    }

    @Test func properties() {
        var seen: Set<String> = []
        for number in 0..<500 {
            let vm = "vm-\(number)"
            let mac = Derived.mac(fleet: "f", vm: vm, interface: 0)
            #expect(mac.octets[0] & 3 == 2, "locally administered, unicast")
            #expect(Derived.cid(fleet: "f", vm: vm) >= 3)
            let tap = Derived.tap(fleet: "f", vm: vm, interface: 0)
            #expect(tap.hasPrefix("mv-") && tap.utf8.count <= 15)
            seen.formUnion([mac.description, tap])
        }
        #expect(seen.count == 1000)
    }

    @Test func partsStayApart() {
        #expect(Derived.cid(fleet: "ab", vm: "c") != Derived.cid(fleet: "a", vm: "bc"))
    }
}
