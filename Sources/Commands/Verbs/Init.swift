// SPDX-License-Identifier: Apache-2.0
import Arguments
import Fleets
import Glibc
import Linux

enum InitVerb {
    static let folder = Key<String?>.argument(
        "DIR", "The folder; this one when omitted.", candidates: .folders)

    static let command = Command(
        "init", "Write a commented starter fleet that works as it is.",
        discussion: "A fleet file that is there already is not touched.",
        parameters: [folder],
        examples: [.init("martlet init home", "Write `home/fleet.yaml`.")]
    ) { arguments in
        let printer = Printer(arguments)
        let folder = arguments[folder] ?? "."
        let path = folder == "." ? "fleet.yaml" : "\(folder)/fleet.yaml"
        try Files.makeFolder(folder)
        try write(starter(for: path), to: path, elsewhere: "Name another folder: martlet init DIR")
        if printer.isJSON {
            printer.document(["file": .string(path)])
        } else {
            printer.line(path)
            printer.note("Look at it, then: martlet up" + (folder == "." ? "" : " -f \(path)"))
        }
    }

    /// Writes a file for people: complete or not at all, and never over one that somebody wrote.
    static func write(_ text: String, to path: String, elsewhere hint: String) throws {
        let temporary = "\(path).new"
        try Files.write(temporary, text, mode: 0o644)
        do {
            try Files.renameNew(temporary, path)
        } catch {
            unlink(temporary)
            guard error.isExisting else { throw error }
            throw Failure(
                .failed, "'\(path)' exists already and was not touched",
                hint: hint)
        }
    }

    /// The starter fleet for a path: the fleet has the name that its folder gives it.
    static func starter(for path: String) -> String {
        var sources = FleetFile.Sources { _ in Array(starter.utf8) }
        sources.directory = Files.workingFolder()
        let name = FleetFile.load(path, from: sources).fleet?.name ?? "fleet"
        // Written down, so that the names derived from it survive a move of the folder.
        return "fleet: \(name)\n\n\(starter)"
    }

    /// Prose comments have a space after `#`; lines without one are keys that wait to be used.
    static let starter = """
        # A fleet: everything that `martlet up` makes true, and keeps true.
        #   martlet plan          what `up` would do, and what it costs
        #   martlet up            do it
        #   martlet ssh hello     log in
        # `martlet schema` gives an editor completion; docs/fleet-file.md explains every key.

        # Holds for every VM that does not say otherwise.
        defaults:
          vcpu: 1
          memory: 512MiB
          disk: 8GiB                # the data volume: holds /var, /home and /root, takes what is used

        # Images of your own: a built-in one (core, dev, docker) and what comes on top.
        images:
          tools:
            from: core
            packages: [htop]        # packages of Debian
            #run: ["systemctl enable fstrim.timer"]

        vms:
          hello:
            image: tools
            ssh: { user: admin }    # your own public keys are let in
            restart: on-failure
            #ports: ["127.0.0.1:8080:80"]        # of the host to the VM
            #health: { tcp: 22, interval: 10s }
            #firewall: { tcp: [80] }
            #volumes: [{ name: cache, size: 20GiB, mount: /srv/cache }]
            #shares: [{ source: ./site, mount: /srv/site, readOnly: true }]

        """
}
