// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Testing

@testable import Images

@Suite struct RecipeTests {
    private func recipe(_ name: String, from: String? = nil) -> ImageRecipe {
        var recipe = ImageRecipe(name: name)
        recipe.from = from
        recipe.packages = ["htop"]
        return recipe
    }

    @Test func chains() throws {
        let recipes = [recipe("tools", from: "docker"), recipe("more", from: "tools")]
        let chain = try LayerRecipe.chain(for: "more", recipes: recipes)
        #expect(chain.map(\.image) == ["base", "core", "docker", "tools", "more"])
        #expect(try LayerRecipe.chain(for: "base", recipes: []).map(\.image) == ["base"])
        // A fleet's own `core` builds on the one that Martlet brings.
        let own = try LayerRecipe.chain(for: "core", recipes: [recipe("core", from: "core")])
        #expect(own.map(\.image) == ["base", "core", "core"])
        #expect(throws: ImageError.unknownImage("nope")) {
            try LayerRecipe.chain(for: "a", recipes: [recipe("a", from: "nope")])
        }
        #expect(throws: ImageError.unknownImage("a")) {
            try LayerRecipe.chain(
                for: "a", recipes: [recipe("a", from: "b"), recipe("b", from: "a")])
        }
    }

    @Test func builtInRecipesAreComplete() throws {
        for name in LayerRecipe.builtIn {
            let layer = try #require(LayerRecipe.builtIn(name))
            #expect(!layer.packages.isEmpty, "\(name)")
            #expect(layer.run.count == 1)
        }
        let base = try #require(LayerRecipe.builtIn("base"))
        // The settings themselves are the VM's: the image has none of its own, and leads to them.
        #expect(!base.files.contains { $0.path.hasPrefix("/etc/sysctl.d/") })
        #expect(base.run[0].contains("/run/martlet/sysctl.conf /etc/sysctl.d/90-hardening.conf"))
        #expect(base.run[0].contains("/run/martlet/modprobe.conf /etc/modprobe.d/90-hard"))
        let guest = try #require(base.files.first { $0.path == "/usr/lib/martlet/guest" })
        #expect(guest.mode == 0o755)
        #expect(guest.content.prefix(4) == [0x7f, 0x45, 0x4c, 0x46])
        #expect(GuestPrograms.initProgram.prefix(4) == [0x7f, 0x45, 0x4c, 0x46])
        #expect(GuestPrograms.initProgram.count < 100_000)
    }

    private let layer = LayerRecipe(
        image: "tools", packages: ["tcpdump", "htop"],
        files: [.init(path: "/etc/it's", mode: 0o640, content: Array("x".utf8))],
        run: ["systemctl enable fstrim.timer"])

    @Test func deltaSteps() {
        let steps = LayerSteps.delta(layer)
        #expect(
            steps.map(\.title) == [
                "stacking the layers below", "preparing the tree", "entering the tree",
                "installing 2 packages", "writing 1 files", "running script 1 of 1",
                "cleaning up", "packing the layer",
            ])
        #expect(steps[3].script.contains("--no-install-recommends install 'htop' 'tcpdump'\n"))
        #expect(
            steps[4].script
                == "inside install -D -o 0 -g 0 -m 640 /run/martlet-files/0 '/etc/it'\\''s'")
        #expect(steps[5].script == "inside /bin/sh -euc 'systemctl enable fstrim.timer'")
    }

    @Test func baseSteps() {
        let steps = LayerSteps.base(.init(image: "base", packages: ["udev", "dbus"]))
        #expect(
            steps.map(\.title) == [
                "downloading the kernel", "installing Debian trixie with 2 packages",
                "preparing the tree", "entering the tree", "cleaning up", "packing the layer",
            ])
        #expect(steps[1].script.contains("--include='dbus,udev'"))
    }

    /// The shell itself reads every script that a built-in gives.
    @Test(arguments: LayerRecipe.builtIn)
    func scriptsAreShell(name: String) async throws {
        let steps = try #require(LayerRecipe.builtIn(name)).steps(hasParent: name != "base")
        let output = try await Program("/bin/sh", ["-n"])
            .capture(input: Array(LayerSteps.render(steps).utf8))
        #expect(output.exit.isSuccess, "\(output.errorText)")
    }

    @Test func keyFollowsEverythingThatCounts() {
        let key = layer.key(above: "aa", mirror: nil)
        #expect(key == layer.key(above: "aa", mirror: nil))
        #expect(key != layer.key(above: "bb", mirror: nil))
        #expect(key != layer.key(above: "aa", mirror: "file:/mirror"))
        var other = layer
        other.packages = ["htop", "tcpdump"]
        #expect(key == other.key(above: "aa", mirror: nil), "the order of packages does not count")
        other.packages = ["htop"]
        #expect(key != other.key(above: "aa", mirror: nil))
        other = layer
        let file = other.files[0]
        other.files[0] = .init(path: file.path, mode: file.mode, content: Array("y".utf8))
        #expect(key != other.key(above: "aa", mirror: nil))
        other = layer
        other.run = []
        #expect(key != other.key(above: "aa", mirror: nil))
    }

    @Test func diagnosesLogs() {
        func diagnose(_ log: String) -> ImageError {
            Builder.diagnose(log: log, image: "tools", step: "s", exit: "exit code 100", root: "/r")
        }
        #expect(
            diagnose("E: Unable to locate package htpo\n")
                == .unknownPackage("htpo", image: "tools"))
        #expect(
            diagnose("E: Package 'nope' has no installation candidate\n")
                == .unknownPackage("nope", image: "tools"))
        #expect(
            diagnose("tar: x: Cannot write: No space left on device\n") == .noSpace(path: "/r"))
        #expect(
            diagnose("== s\none\ntwo\n")
                == .failed(image: "tools", step: "s", output: "exit code 100: one | two"))
        #expect(diagnose("") == .failed(image: "tools", step: "s", output: "exit code 100"))
    }
}
