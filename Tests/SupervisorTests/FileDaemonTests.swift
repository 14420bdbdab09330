// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Supervisor

@Suite struct FileDaemonTests {
    private func share(
        _ owners: SharedFolder.Owners = .host, readOnly: Bool = false
    ) -> SharedFolder {
        SharedFolder(
            tag: "data", source: "/srv/data", readOnly: readOnly, owners: owners,
            identity: .init(device: 1, inode: 2, born: 3), socket: "/run/web/shares/0.sock",
            mountPoint: "/run/web/shares/0")
    }

    private func arguments(
        _ kind: FileDaemon.Kind, _ share: SharedFolder, folder: String = "/run/web/shares/0",
        attributes: Bool = true, isRoot: Bool = true,
        isContained: Bool = false
    ) -> String {
        FileDaemon(path: "/usr/libexec/virtiofsd", kind: kind).arguments(
            share, folder: folder, descriptor: 3, attributes: attributes,
            footing: .init(isPrivileged: isRoot, isContained: isContained)
        ).joined(separator: " ")
    }

    @Test func aFolderIsAnotherOneWhenItWasMadeLater() {
        let one = SharedFolder.Identity(device: 1, inode: 2, born: 3)
        #expect(one.matches(.init(device: 1, inode: 2, born: 3)))
        #expect(!one.matches(.init(device: 1, inode: 2, born: 4)))
        #expect(!one.matches(.init(device: 2, inode: 2, born: 3)))
        #expect(!one.matches(.init(device: 1, inode: 3, born: 3)))
        // Records of before do not say it, nor do some file systems.
        #expect(one.matches(.init(device: 1, inode: 2, born: nil)))
    }

    @Test func theDaemonOfDebian12() {
        #expect(
            arguments(.c, share())
                == "--fd=3 -o source=/run/web/shares/0,sandbox=namespace,cache=auto,"
                + "announce_submounts,xattr,modcaps=-mknod,log_level=err")
        #expect(
            arguments(.c, share(), folder: "/a,b\\c", attributes: false)
                == "--fd=3 -o source=/a\\,b\\\\c,sandbox=namespace,cache=auto,"
                + "announce_submounts,no_xattr,modcaps=-mknod,log_level=err")
        // Nothing for read-only: what it serves is mounted so.
        #expect(arguments(.c, share(readOnly: true)) == arguments(.c, share()))
    }

    private static let rust =
        "--fd=3 --shared-dir=/run/web/shares/0 --sandbox=namespace --seccomp=kill --cache=auto "
        + "--announce-submounts --log-level=error"

    @Test func theDaemonOfDebian13() {
        #expect(arguments(.rust, share()) == Self.rust + " --xattr --modcaps=-mknod")
        #expect(
            arguments(.rust, share(readOnly: true), attributes: false)
                == Self.rust + " --modcaps=-mknod --readonly")
    }

    @Test func usersOfTheGuestAreOthersOnTheHost() {
        #expect(
            arguments(.rust, share(.map(base: 2_000_000_000)), attributes: false)
                == Self.rust + " --modcaps=-mknod"
                + " --translate-uid=map:0:2000000000:65536"
                + " --translate-uid=forbid-guest:65536:4294901759"
                + " --translate-gid=map:0:2000000000:65536"
                + " --translate-gid=forbid-guest:65536:4294901759")
        #expect(
            arguments(.rust, share(), attributes: false, isContained: true)
                == Self.contained + " --modcaps=-mknod")
    }

    private static let contained =
        rust.replacing("namespace", with: "none") + " --rlimit-nofile=0"

    /// In a unit nothing else is in sight; as a process it is 0 in a user namespace of its own.
    @Test func filesOfOneUserNeedNoMore() {
        let share = share(.squash(user: 1_900_000_001))
        #expect(
            arguments(.rust, share, attributes: false, isRoot: false, isContained: true)
                == Self.contained
                + " --translate-uid=squash-guest:0:1900000001:4294967295"
                + " --translate-uid=squash-host:0:0:4294967295"
                + " --translate-gid=squash-guest:0:1900000001:4294967295"
                + " --translate-gid=squash-host:0:0:4294967295")
    }

    /// In the user namespace of its own sandbox it is 0, whoever started it.
    @Test func withoutPrivilegeAllIsOnesOwn() {
        #expect(
            arguments(.rust, share(.squash(user: 1000)), attributes: false, isRoot: false)
                == Self.rust
                + " --translate-uid=squash-guest:0:0:4294967295"
                + " --translate-uid=squash-host:0:0:4294967295"
                + " --translate-gid=squash-guest:0:0:4294967295"
                + " --translate-gid=squash-host:0:0:4294967295")
    }

    @Test func tellsTheTwoApart() {
        let old = "virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c)"
        #expect(FileDaemon.kind(version: old) == .c)
        #expect(FileDaemon.kind(version: "virtiofsd 1.13.2\n") == .rust)
    }
}
