// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine

/// `suspend`, `resume`: whole VMs to disk and back.
enum SuspendVerbs {
    static let suspend = Command(
        "suspend", "Write running VMs to disk, memory and all.",
        discussion: """
            Takes no memory and no CPU until 'martlet resume', survives a restart of the host, and \
            goes on where it was. The memory lies unencrypted in ROOT/vms/NAME until then. Not for \
            VMs with shares or devices of the host, nor while one is paused or still boots.
            """,
        parameters: [Options.someVMs],
        examples: [.init("martlet suspend web", "Make room; 'martlet resume web' goes on.")]
    ) { arguments in
        try await LifecycleVerbs.each("suspend", arguments, Options.someVMs) { engine, name in
            let suspended = try await engine.suspend(name)
            return "suspended, \(Units.bytes(suspended.bytes)) of memory on disk"
        }
    }

    static let resume = Command(
        "resume", "Let suspended VMs go on where they were.",
        discussion: """
            Refused when the VM would not be the machine that it was: another image, \
            configuration or version of the hypervisor, or disks that were changed meanwhile. \
            'martlet start --discard-memory' boots it afresh then, as after a power cut.
            """,
        parameters: [Options.someVMs],
        examples: [.init("martlet resume web", "Load its memory and go on.")]
    ) { arguments in
        try await LifecycleVerbs.each("resume", arguments, Options.someVMs) { engine, name in
            "running after \(Units.duration(seconds: try await engine.resume(name)))"
        }
    }
}
