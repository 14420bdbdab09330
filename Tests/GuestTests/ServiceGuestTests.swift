// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

private let isFull = environment("MARTLET_TESTS") == "full" && getuid() == 0

/// A service of the catalogue in a VM: its image, its unit in its sandbox, its secrets, its check.
@Suite(
    "RealService", .enabled(if: isFull, "needs MARTLET_TESTS=full and root"),
    .serialized, .timeLimit(.minutes(60)))
struct ServiceGuestTests {
    @Test func sabnzbd() async throws {
        let version = "http: \"http://:8080/api?mode=version&output=json\""
        try await ServiceGuest.with("sabnzbd", forward: 8080, health: version, "vcpu: 2") { guest in
            try await guest.up()
            let martlet = guest.martlet
            #expect(try await martlet.inGuest("systemctl show sabnzbd -P User") == "sabnzbd")
            // The right key opens its queue, and no other; the page asks for the password.
            let key = try await guest.secret("api-key")
            #expect(key.utf8.count == 32)
            let path = "/api?mode=queue&output=json&apikey="
            let queue = try await guest.page(path + key)
            #expect(queue.contains("\"queue\""), "\(queue)")
            let refused = try await guest.page(path + "x" + key)
            #expect(refused.contains("HTTP/") && !refused.contains("\"queue\""), "\(refused)")
            // Debian's own list of what it installs from is as it was.
            let lists = try await martlet.inGuest(
                "grep -rl non-free /etc/apt/sources.list* | head; echo end")
            #expect(lists == "end")
        }
    }

    /// An image made in the guest, and containers of it: one that ends, one that serves a page and
    /// is there again after a restart, with the volume that it wrote to.
    @Test func docker() async throws {
        let keys = "memory: 1GiB"
        try await ServiceGuest.with(
            "docker", forward: 8000, health: "exec: \"docker info\"", keys
        ) { guest in
            try await guest.up()
            // As `admin`, who logs in.
            let output = try await guest.martlet(
                "exec", "guest", "--", "runuser", "-u", "admin", "--", "sh", "-euc",
                "cat >/tmp/make; sh -eu /tmp/make", input: Array(Self.container.utf8))
            try #require(output.exit == .code(0), "\(output.text)\(output.errorText)")
            #expect(output.text.contains("\nfrom inside\n"), "\(output.text)")
            #expect(output.text.contains("\nSSH-2.0-"), "\(output.text)")
            #expect(try await guest.page("/", holds: "\r\n\r\nkept"))
            try await guest.must("restart", "guest")
            try await guest.isHealthy()
            #expect(try await guest.page("/", holds: "\r\n\r\nkept"))
            #expect(try await guest.martlet("plan", "--check").exit == .code(0))
        }
    }

    /// No registry is asked: the image is of the guest's own programs.
    private static let container = """
        mkdir -p ~/made/root
        cd ~/made
        for program in /bin/bash /bin/sh /bin/cat /usr/bin/systemd-socket-activate; do
            for file in "$program" $(ldd "$program" | grep -o '/[^ ]*'); do
                mkdir -p "root$(dirname "$file")"
                [ -e "root$file" ] || cp -L "$file" "root$file"
            done
        done
        printf 'HTTP/1.0 200 OK\\r\\n\\r\\n' >root/head
        cat >Dockerfile <<'END'
        FROM scratch
        COPY root/ /
        VOLUME /data
        CMD ["/usr/bin/systemd-socket-activate", "--inetd", "-a", "-l", "8000", "/bin/cat", "/head", "/data/word"]
        END
        docker build -q -t made . 2>/dev/null
        docker run --rm made /bin/bash -c '
            echo from inside
            exec 3<>/dev/tcp/172.17.0.1/22
            read -r line <&3
            echo "$line"'
        cat >compose.yaml <<'END'
        services:
          web: { image: made, restart: always, ports: ["8000:8000"], volumes: ["data:/data"] }
        volumes: { data: {} }
        END
        docker compose up -d 2>/dev/null
        docker compose exec -T web /bin/bash -c 'echo kept >/data/word'
        """

    @Test func dev() async throws {
        let keys = "memory: 1GiB"
        try await ServiceGuest.with("dev", forward: 22, health: "tcp: 22", keys) { guest in
            try await guest.up()
            let work = """
                cd; id -un; sudo -n true 2>/dev/null || echo no sudo
                printf '#include <stdio.h>\\nint main(void) { puts("C"); }' >a.c && gcc a.c -o a && ./a
                echo 'console.log("node")' >a.js && node a.js
                python3 -m venv --without-pip v && v/bin/python -c 'print("python")'
                git init -q repository && echo git
                for tool in git-lfs make g++ go npm rg fd jq tmux vim curl ssh; do
                    command -v $tool >/dev/null || echo "no $tool"
                done
                """
            #expect(
                try await logIn(guest, "user", work)
                    == "user\nno sudo\nC\nnode\npython\ngit")
            #expect(try await logIn(guest, "admin", "sudo -n id -un") == "root")
            // The home is data: a fresh system has it as well.
            try await guest.must("restart", "guest")
            try await guest.isHealthy()
            #expect(try await logIn(guest, "user", "./a") == "C")
        }
    }

    /// The browser opens the page that is served beside it.
    @Test func firefox() async throws {
        let page = "http://127.0.0.1:6080/vnc.html?autoconnect=1"
        let keys = "vcpu: 2\n    with: { page: \"\(page)\" }"
        let health = "http: \"http://:6080/vnc.html\""
        try await ServiceGuest.with("firefox", forward: 6080, health: health, keys) { guest in
            try await guest.up()
            #expect(try await guest.page("/vnc.html").contains(" 200 "))
            // It may have been there before the page was. Emulated, it takes a minute or more.
            let seen = try await guest.martlet.inGuest(
                """
                systemctl restart browser
                for i in $(seq 300); do
                    ss -tnpH state established dport = :6080 | grep -o firefox && break; sleep 1
                done
                systemctl is-active browser browser-screen browser-web
                systemctl show browser browser-screen browser-web -P User
                """)
            let lines = seen.split(whereSeparator: \.isNewline)
            #expect(
                lines == [
                    "firefox", "active", "active", "active", "browser", "browser", "browser",
                ],
                "\(seen)")
        }
    }

    /// Over the forwarded port, with the key that the fleet file lets in.
    private func logIn(
        _ guest: ServiceGuest, _ user: String, _ command: String
    ) async throws -> String {
        let ssh = try #require(findProgram("ssh"))
        let output = try await Program(
            ssh,
            [
                "-q", "-i", guest.martlet.folder.path + "/key", "-p", "\(guest.port)",
                "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                "-o", "BatchMode=yes", "\(user)@127.0.0.1", command,
            ]
        ).capture()
        #expect(output.exit == .code(0), "\(user): \(output.errorText)")
        return output.text.trimmed
    }

    /// An account that is made in the guest logs in from outside, with its password alone.
    @Test func matrixSynapse() async throws {
        let keys = "memory: 1GiB\n    with: { serverName: chat.example.org }"
        let health = "http: \"http://:8008/health\""
        try await ServiceGuest.with("matrix-synapse", forward: 8008, health: health, keys) {
            guest in
            try await guest.up()
            let settings = try await guest.martlet.inGuest(
                "systemctl show matrix-synapse -P User -P ProtectSystem")
            #expect(settings == "matrix-synapse\nstrict")
            let chat = Chat(guest: guest)
            let word = randomHex(8)
            try await chat.makeAccount("alice", word)
            #expect(try await chat.logIn("alice", word).contains("@alice:chat.example.org"))
            #expect(try await chat.logIn("alice", word + "x").contains("M_FORBIDDEN"))
            #expect(try await guest.martlet("plan", "--check").exit == .code(0))
        }
    }
}

/// Accounts of a Matrix server.
struct Chat {
    let guest: ServiceGuest

    /// As the entry says that the first account is made; its password comes by standard input.
    func makeAccount(_ name: String, _ password: String) async throws {
        let script = """
            read -r password; read -r key
            /opt/synapse/bin/register_new_matrix_user -u \(name) -p "$password" -a -k "$key" \
            http://localhost:8008
            """
        let key = try await guest.secret("registration")
        let output = try await guest.martlet(
            "exec", "guest", "--", "sh", "-euc", script,
            input: Array("\(password)\n\(key)\n".utf8))
        try #require(output.exit == .code(0), "\(output.text)\(output.errorText)")
    }

    /// What the server answers.
    func logIn(_ name: String, _ password: String) async throws -> String {
        try await guest.page(
            "/_matrix/client/v3/login", "-d",
            #"{"type":"m.login.password","user":"\#(name)","password":"\#(password)"}"#)
    }
}
