// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Supervisor
import Testing

@testable import Engine

/// Units of a service manager: which one has the VMs, and what it reads.
///
/// What it makes of that is tried in hosts of their own (Tests/Hosts).
struct ServiceTests {
    private static let root = Layout(root: "/var/lib/martlet", run: "/run/martlet")
    private static let template = "/usr/lib/systemd/system/microvm@.service"

    private func find(
        _ layout: Layout, user: UInt32 = 0, _ there: Set<String>,
        _ variables: [String: String] = [:]
    ) -> ServiceManager? {
        ServiceManager.find(
            layout, user: user, variable: { variables[$0] }, isThere: { there.contains($0) })
    }

    @Test func systemdHasTheVMsOfTheStandardPlaces() {
        let there: Set = ["/run/systemd/system", Self.template]
        let found = find(Self.root, there)
        #expect(found?.kind == .system)
        #expect(found?.folder == "/etc/systemd/system")
        #expect(found?.template == Self.template)
        // Another init, units that are not installed, a ROOT that the units do not name.
        #expect(find(Self.root, [Self.template]) == nil)
        #expect(find(Self.root, ["/run/systemd/system"]) == nil)
        #expect(find(Layout(root: "/srv/martlet", run: "/run/martlet"), there) == nil)
        #expect(find(Layout(root: "/var/lib/martlet", run: "/run/other"), there) == nil)
    }

    @Test func aUserHasAManagerOfTheirOwn() {
        let variables = ["HOME": "/home/me", "XDG_RUNTIME_DIR": "/run/user/1000"]
        let layout = Layout(root: "/home/me/.local/share/martlet", run: "/run/user/1000/martlet")
        let unit = "/usr/lib/systemd/user/microvm@.service"
        let there: Set = ["/run/systemd/system", "/run/user/1000/systemd/private", unit]
        let found = find(layout, user: 1000, there, variables)
        #expect(found?.kind == .user)
        #expect(found?.folder == "/home/me/.config/systemd/user")
        // Without a session there is no manager.
        #expect(
            find(
                layout, user: 1000, there.subtracting(["/run/user/1000/systemd/private"]), variables
            )
                == nil)
    }

    @Test func whyNobodyHasThemIsSaid() {
        func look(
            _ there: Set<String>, _ layout: Layout = Self.root, user: UInt32 = 0
        ) -> ServiceManager.Found {
            ServiceManager.look(
                layout, user: user, variable: { ["HOME": "/home/me"][$0] },
                isThere: { there.contains($0) })
        }
        let running = "/run/systemd/system"
        #expect(look([Self.template]) == .noSystemd)
        #expect(look([running]) == .notInstalled)
        #expect(
            look([running, Self.template], Layout(root: "/srv/m", run: "/run/m")) == .elsewhere)
        if let mine = try? Layout.standard(user: 1000, variable: { ["HOME": "/home/me"][$0] }) {
            #expect(look([running], mine, user: 1000) == .noSession)
        } else {
            Issue.record("an ordinary user has no places")
        }
    }

    private func text(_ change: (inout UnitSettings) -> Void = { _ in }) -> String {
        var vm = VM(name: "web")
        vm.interfaces = [Fleets.Interface(network: "lan")]
        var settings = UnitSettings(vm: vm, fleet: "home", user: "microvm-web")
        change(&settings)
        return settings.text
    }

    @Test func aUnitKnowsItsUserAndItsTurn() {
        #expect(
            text() == """
                # Made by martlet from a fleet file: changes are lost.
                # Put your own settings into another file beside this one.
                [Unit]
                Description=microVM web of the fleet home

                [Service]
                User=microvm-web
                Group=microvm-web
                MemoryMax=805306368
                TasksMax=128

                """)
        var vm = VM(name: "web")
        vm.after = ["vault", "dns"]
        let user = UnitSettings(vm: vm, fleet: "home", user: nil).text
        #expect(
            user.contains(
                """
                Description=microVM web of the fleet home
                After=microvm@vault.service
                After=microvm@dns.service

                """))
        // A user's own manager runs as that user, and puts up no walls.
        #expect(!user.contains("User=") && !user.contains("PrivateNetwork"))
    }

    @Test func limitsAreTheServices() throws {
        let loaded = FleetFile.parse(
            """
            fleet: home
            vms:
              web:
                memory: 1GiB
                limits: { cpu: 150%, memoryOverhead: 128MiB, io: 50MiB/s, tasks: 64 }
            """)
        let vm = try #require(loaded.fleet?.vm("web"))
        let text = UnitSettings(vm: vm, fleet: "home", user: "microvm-web").text
        for line in [
            "CPUQuota=150%", "MemoryMax=1207959552", "TasksMax=64",
            "IOReadBandwidthMax=/var/lib/martlet 52428800",
            "IOWriteBandwidthMax=/var/lib/martlet 52428800",
        ] { #expect(text.contains(line + "\n"), "\(line)") }
    }

    @Test func settingsOfOnesOwnComeLast() throws {
        let own = text { settings in
            var vm = settings.vm
            vm.hardening.confine = .custom([
                "ProtectProc": "default", "MemoryDenyWriteExecute": "yes",
            ])
            settings = UnitSettings(
                vm: vm, fleet: "home", user: "microvm-web", isEmulated: true)
        }
        #expect(
            own.hasSuffix(
                "MemoryDenyWriteExecute=no\nMemoryDenyWriteExecute=yes\nProtectProc=default\n"))
        let off = text { settings in
            var vm = settings.vm
            vm.hardening.confine = .off
            settings = UnitSettings(vm: vm, fleet: "home", user: "microvm-web")
        }
        #expect(off.contains("RootDirectory=\n") && off.contains("SystemCallFilter=\n"))
        #expect(!off.contains("CapabilityBoundingSet") && off.contains("User=microvm-web\n"))
    }

    @Test func traffickingHypervisorsAreGivenTheNetworkOfTheHost() {
        let closed = text()
        let open = text {
            $0 = UnitSettings(vm: VM(name: "web"), fleet: "home", user: "microvm-web")
        }
        #expect(!closed.contains("PrivateNetwork") && open.contains("PrivateNetwork=no\n"))
        #expect(open.contains("RestrictAddressFamilies=AF_INET AF_INET6\n"))
    }

    @Test func listsOfUnitsAreRead() {
        let list = "microvm@web.service loaded failed failed microVM web of the fleet home\n"
        #expect(ServiceManager.units(in: list) == ["microvm@web.service"])
        #expect(ServiceManager.units(in: "") == [])
    }

    @Test func namesOfAccountsFitDebian() {
        #expect(UnitAccount.name(vm: "web", user: 1_900_000_000) == "microvm-web")
        let long = String(repeating: "a", count: 24)
        #expect(UnitAccount.name(vm: long, user: 1_900_000_000) == "microvm-1900000000")
    }

    @Test func unitsAreMadeAndRemovedWithoutTouchingOthers() throws {
        var template = Array("/tmp/martlet-units-XXXXXX".utf8CString)
        let folder = String(cString: try #require(mkdtemp(&template)))
        defer { try? Files.remove(folder) }
        let manager = ServiceManager(kind: .system, folder: folder, template: Self.template)
        var settings = UnitSettings(vm: VM(name: "web"), fleet: "home", user: "microvm-web")
        let none = manager.compare(settings, failed: [])
        #expect(none == UnitReport(vm: "web", settings: .missing, starts: false))
        #expect(try manager.install(settings))
        #expect(try !manager.install(settings))
        #expect(manager.compare(settings, failed: []) == UnitReport(vm: "web"))
        #expect(try Files.readText(manager.settings("web")) == settings.text)
        #expect(try Files.readLink(manager.wish("web")) == Self.template)
        settings = UnitSettings(
            vm: { () -> VM in
                var vm = VM(name: "web")
                vm.autostart = false
                return vm
            }(), fleet: "home", user: "microvm-other")
        #expect(
            manager.compare(settings, failed: ["microvm@web.service"])
                == UnitReport(vm: "web", settings: .old, shouldStart: false, hasFailed: true))
        #expect(try manager.install(settings))
        #expect(throws: SystemError.self) { try Files.readLink(manager.wish("web")) }
        let own = Files.parent(manager.settings("web")) + "/own.conf"
        try Files.write(own, "[Service]\n")
        #expect(try manager.uninstall("web"))
        #expect(try !manager.uninstall("web"))
        #expect(Files.exists(own))
        #expect(!Files.exists("\(folder)/default.target.wants"))
        // What starts the VMs of a user is the user's own to enable, and nobody else does it.
        let users = ServiceManager(
            kind: .user, folder: folder, template: "/usr/lib/user/m@.service")
        let wanted = UnitSettings(vm: VM(name: "web"), fleet: "home", user: nil)
        let target = "\(folder)/default.target.wants/microvms.target"
        #expect(try users.install(wanted))
        #expect(try Files.readLink(target) == "/usr/lib/user/microvms.target")
        try Files.remove(target)
        #expect(try !users.install(wanted))
        #expect(throws: SystemError.self) { try Files.readLink(target) }
    }

    private func shareText(
        _ kind: FileDaemon.Kind, _ owners: SharedFolder.Owners...
    ) -> String {
        let shares = owners.enumerated().map { index, owners in
            SharedFolder(
                tag: "s\(index)", source: "/srv/a:b", readOnly: index == 1, owners: owners,
                identity: .init(device: 1, inode: 2, born: nil),
                socket: "/run/martlet/web/shares/\(index).sock",
                mountPoint: ShareUnit.mountPoint(index))
        }
        return ShareUnit(
            vm: "web", daemon: kind, shares: shares, account: "microvm-web",
            sources: "/run/martlet/web/sources"
        ).text
    }

    @Test func sharesOfOneUserAreServedByThatUser() {
        let one = SharedFolder.Owners.squash(user: 1_900_000_001)
        #expect(
            shareText(.rust, one, one) == """
                # Made by martlet from a fleet file: changes are lost.
                [Service]
                BindPaths=/run/martlet/web/sources/0:/var/share/0
                BindReadOnlyPaths=/run/martlet/web/sources/1:/var/share/1
                User=microvm-web
                Group=microvm-web

                """)
        // One that keeps owners is enough, and QEMU's daemon knows no others.
        let rest = "CAP_FOWNER CAP_FSETID CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID\n"
        for text in [shareText(.rust, one, .host), shareText(.rust, .map(base: 65536))] {
            #expect(text.contains("\nUser=\nGroup=\n") && text.contains(rest), "\(text)")
            #expect(!text.contains("RestrictNamespaces"))
        }
        let old = shareText(.c, .host)
        #expect(old.contains(" CAP_SYS_ADMIN CAP_SYS_CHROOT\nRestrictNamespaces=\n"))
    }
}
