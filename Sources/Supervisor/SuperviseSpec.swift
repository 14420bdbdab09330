// SPDX-License-Identifier: Apache-2.0
package import Hypervisors
import Linux

/// What a supervisor is to do: written by `prepare`, read by `supervise`, plain data.
package struct SuperviseSpec: Codable, Sendable, Equatable {
    package var name: String
    package var generation: Int
    /// The digest of the image that is booted: it goes into the run record.
    package var imageDigest: String
    package var launch: LaunchSpec
    /// The hypervisor's program, an absolute path.
    package var hypervisor: String
    /// `NAME=value` strings for the hypervisor; the supervisor's own are not passed on.
    package var environment: [String] = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    package var paths: Paths
    package var boot = Boot()
    package var restart = Restart()
    /// Seconds that a guest has to shut down by itself.
    package var stopGrace: Double = 30
    package var health: [HealthCheck] = []
    /// The host's boot, which whoever has walls around it cannot read.
    package var bootID = Clock.bootID()
    /// SHA-256 of the files that the hypervisor itself boots from, by path: `prepare` has compared
    /// them, and each further start does so again.
    package var bootFiles: [String: String]?
    /// The file of saved memory to go on from, for as long as the exit record says `suspended`.
    package var resume: String?

    package init(
        name: String, generation: Int, imageDigest: String, launch: LaunchSpec,
        hypervisor: String, paths: Paths
    ) {
        self.name = name
        self.generation = generation
        self.imageDigest = imageDigest
        self.launch = launch
        self.hypervisor = hypervisor
        self.paths = paths
    }

    /// Files and folders, all absolute.
    ///
    /// The supervisor's uid must be able to write each of them.
    package struct Paths: Codable, Sendable, Equatable {
        /// Held while the supervisor or the hypervisor lives; the file survives a reboot of the host.
        package var lock: String
        /// Beside the lock, for the same reason.
        package var runRecord: String
        package var exitRecord: String
        package var consoleLog: String
        /// One `VMEvent` a line.
        package var eventLog: String
        /// Holds `launch.json`, `control.sock`, `console.sock` and `ssh.sock`.
        package var runFolder: String
        /// Where this very spec lies: `reload` reads it again.
        package var spec: String

        package init(
            lock: String, runRecord: String, exitRecord: String, consoleLog: String,
            eventLog: String, runFolder: String, spec: String? = nil
        ) {
            self.lock = lock
            self.runRecord = runRecord
            self.exitRecord = exitRecord
            self.consoleLog = consoleLog
            self.eventLog = eventLog
            self.runFolder = runFolder
            self.spec = spec ?? runFolder + "/launch.json"
        }

        package var control: String { runFolder + "/control.sock" }
        package var console: String { runFolder + "/console.sock" }
        package var ssh: String { runFolder + "/ssh.sock" }
    }

    package struct Boot: Codable, Sendable, Equatable {
        /// Seconds from the hypervisor's start to the guest's word that it is up.
        package var deadline: Double = 90
        /// How often a boot that missed its deadline is tried again.
        package var retries = 1
        /// Who says that the guest is up: our own image on its port, a foreign one by its agent.
        package var signal = Signal.ready
        package enum Signal: String, Codable, Sendable { case ready, agent }
        package init() {}
    }

    package struct Restart: Codable, Sendable, Equatable {
        package enum Policy: String, Codable, Sendable, CaseIterable {
            case no
            case onFailure = "on-failure"
            case always
        }
        package var policy = Policy.onFailure
        /// Seconds before the first restart; doubled each time, up to `longest`.
        package var delay: Double = 1
        package var longest: Double = 60
        /// More failures than this within `window` seconds are a crash loop: it is given up.
        package var limit = 5
        package var window: Double = 600
        package init() {}
    }

    /// A question that is put inside the guest, so that no network of the host takes part.
    package struct HealthCheck: Codable, Sendable, Equatable {
        package enum Probe: Codable, Sendable, Equatable {
            case http(port: UInt16, path: String)
            /// A page over TLS, or of another host.
            case page(Page)
            case tcp(port: UInt16)
            case dns(name: String)
            /// Run by the guest's `/bin/sh -c`; healthy when it exits with 0.
            case exec(command: String)
        }
        /// What the programs of a guest ask for, and not Martlet's own.
        package struct Page: Codable, Sendable, Equatable {
            package var isSecure: Bool
            /// Nil for the guest itself.
            package var host: String?
            package var port: UInt16
            package var path: String
            /// Whether its certificate must be one that the guest trusts, and for that host.
            package var isVerified: Bool

            package init(
                isSecure: Bool, host: String?, port: UInt16, path: String, isVerified: Bool
            ) {
                self.isSecure = isSecure
                self.host = host
                self.port = port
                self.path = path
                self.isVerified = isVerified
            }
        }
        package var probe: Probe
        /// Seconds between two checks.
        package var interval: Double = 10
        /// Seconds that one check may take.
        package var timeout: Double = 2
        /// So many failures in a row make the VM unhealthy.
        package var retries = 3
        /// Seconds after boot in which a failure does not count.
        package var startup: Double = 60

        package init(_ probe: Probe) { self.probe = probe }
    }
}
