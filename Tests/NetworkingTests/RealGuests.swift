// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// Two real VMs on two networks of a lab's host, which the tests of a suite share.
struct RealGuests: SuiteTrait, TestScoping {
    @TaskLocal static var current: Running?

    struct Running: Sendable {
        let martlet: Martlet
        let lab: Lab

        /// A ROOT of its own over the images that all tests share.
        init(lab: Lab) throws {
            self.lab = lab
            martlet = try Martlet()
            try martlet.shareImages()
        }

        /// Runs the program in the lab's host.
        func run(_ arguments: String...) async throws -> Output {
            var program = martlet.program([])
            program.arguments = ["netns", "exec", lab.namespace("host"), program.path] + arguments
            program.path = "/sbin/ip"
            return try await program.capture()
        }

        func must(_ arguments: String...) async throws -> Output {
            var program = martlet.program([])
            program.arguments = ["netns", "exec", lab.namespace("host"), program.path] + arguments
            program.path = "/sbin/ip"
            let output = try await program.capture()
            try #require(
                output.exit == .code(0),
                "\(arguments): \(output.text)\(output.errorText)\(traces)")
            return output
        }

        /// What a shell command in a guest prints; its failure is an empty text.
        func inGuest(_ name: String, _ command: String) async throws -> String {
            let output = try await run("exec", name, "--", "bash", "-c", command)
            return String(output.text.drop { $0.isNewline }.prefix { !$0.isNewline })
        }

        /// The first line that a guest hears from a TCP port, empty when there is none.
        ///
        /// What should be closed is given seconds, and what should be open the time of a busy machine.
        func heard(
            by name: String, from address: String, _ port: Int, within seconds: Int = 30
        ) async throws -> String {
            // The redirection is what connects: it has to be within the limit as well.
            let command = "head -n 1 < /dev/tcp/\(address)/\(port)"
            return try await inGuest(name, "timeout \(seconds) bash -c '\(command)'")
        }

        /// What it hears within seconds from several at once, in their order.
        func heard(by name: String, fromAll ends: [(String, Int)]) async throws -> [String] {
            let commands = ends.enumerated().map { index, end in
                "(timeout 3 bash -c 'head -n 1 < /dev/tcp/\(end.0)/\(end.1)' > /tmp/heard-\(index)) &"
            }
            let script =
                commands.joined(separator: "\n") + "\nwait\n"
                + ends.indices.map { "echo \"$(cat /tmp/heard-\($0))\"" }.joined(separator: "\n")
            let output = try await run("exec", name, "--", "bash", "-c", script)
            return output.text.split(separator: "\n", omittingEmptySubsequences: false)
                .prefix(ends.count).map(String.init)
        }

        /// The address that a guest was given by somebody's DHCP.
        func address(_ name: String, on prefix: String) async throws -> String {
            let command =
                "until ip -4 -o address | grep -o '\(prefix)[0-9]*/'; do sleep 0.5; done"
            let said = try await inGuest(name, "timeout 120 bash -c \"\(command)\"")
                .replacing("/", with: "")
            return try #require(said.hasPrefix(prefix) ? said : nil, "\(name): '\(said)' \(traces)")
        }

        /// No link, no rule, no server and no file of the networks outlives the last VM.
        func nothingIsLeft() async throws {
            let links = try await lab.sh("host", "ip -br link").text
            #expect(!links.contains("mb-") && !links.contains("mv-") && !links.contains("mi-"))
            #expect(try await lab.sh("host", "nft list ruleset").text == "")
            let run = martlet.run + "/.networks"
            #expect(try Files.list(run).isEmpty)
            let servers = RunningProcess.all { words in
                words.contains { $0.contains(martlet.folder.path) }
            }
            #expect(servers.isEmpty, "\(servers.map(\.words))")
        }

        /// Waits until a guest has its IPv6 address, which comes later than its sshd.
        func settle(_ name: String) async throws {
            let command = "until ip -6 address | grep -q 'inet6 fd'; do sleep 0.2; done; echo done"
            let said = try await inGuest(name, "timeout 120 bash -c \"\(command)\"")
            try #require(said == "done", "\(name) has no IPv6 address: \(traces)")
        }

        /// Whether an sshd answers a peer of the lab.
        ///
        /// `within` is in seconds: an emulated guest on a busy host takes its time, and one that is
        /// closed needs none.
        func hasSSH(
            from peer: String, _ address: String, _ port: Int, within: Int = 4
        ) async throws -> Bool {
            let command = "timeout \(within) bash -c 'head -c 4 < /dev/tcp/\(address)/\(port)'"
            return try await lab.sh(peer, command, mayFail: true).text == "SSH-"
        }

        func write(
            egress: String = "internet", allow: String = "", trusted: String = "wg0",
            address: String = "10.1.0.2", ports: String = "\"2201:22\", \"127.0.0.1:2202:22\""
        ) throws {
            try martlet.write(
                fleet: """
                    fleet: real
                    networks:
                      a: { subnet: 10.1.0.0/24, ipv6: true, dns: [203.0.113.1], egress: \(egress) }
                      b: { subnet: 10.2.0.0/24, dns: [203.0.113.1] }
                    trusted: [\(trusted)]
                    allow: [\(allow)]
                    defaults:
                      memory: 320MiB
                      disk: 1GiB
                      boot: { deadline: 4m }
                      ssh: { authorizedKeys: [] }
                    vms:
                      one:
                        interfaces: [{ network: a, address: \(address) }]
                        ports: [\(ports)]
                        firewall: { tcp: [80] }
                      two:
                        interfaces: [{ network: b }, { network: user }]
                    """)
        }

        /// What VMs that did not come up left behind.
        private var traces: String {
            let names = (try? Files.list("\(martlet.root)/vms")) ?? []
            return names.map { name in
                let logs = "\(martlet.root)/vms/\(name)/logs/"
                return ["events.jsonl", "supervisor.log", "console.log"].map {
                    "\n\(name) \($0): \((try? Files.readText(logs + $0))?.suffix(2000) ?? "none")"
                }.joined()
            }.joined()
        }
    }

    func provideScope(
        for test: Test, testCase: Test.Case?,
        performing function: @concurrent @Sendable () async throws -> Void
    ) async throws {
        guard test.isSuite else { return try await function() }
        try await Lab.with { lab in
            let running = try Running(lab: lab)
            let result: Result<Void, any Error>
            do {
                try running.write()
                // Outside of the lab, for there are no packages in it.
                let built = try await running.martlet("build", "core")
                try #require(built.exit == .code(0), "\(built.text)\(built.errorText)")
                _ = try await running.must("up")
                try await running.settle("one")
                try await RealGuests.$current.withValue(running) { try await function() }
                result = .success(())
            } catch {
                result = .failure(error)
            }
            _ = try await running.run("kill", "one", "two")
            try await running.nothingIsLeft()
            _ = try await running.run("purge", "one", "two", "--yes")
            try result.get()
        }
    }
}
