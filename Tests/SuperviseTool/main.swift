// SPDX-License-Identifier: Apache-2.0
// What the supervisor's tests run as processes of their own: `supervise SPEC` is a supervisor on
// its main thread, `ask SOCKET` tells whether a supervisor answers this user, `relay` forwards ports
// over sockets that it inherits, `guest` plays the guest of a QEMU, `virtiofsd` is the daemon of a share, anything else is the hypervisor that a supervisor starts.
import Glibc
import Linux
import Supervisor

if CommandLine.arguments.count == 3, CommandLine.arguments[1] == "supervise" {
    do {
        exit(Supervisor.run(try SuperviseSpec.read(CommandLine.arguments[2])))
    } catch {
        print(error)
        exit(1)
    }
} else if CommandLine.arguments.count == 3, CommandLine.arguments[1] == "ask" {
    let socket = try UnixSocket.connect(CommandLine.arguments[2])
    // The supervisor may have hung up already.
    Signals.ignoreBrokenPipes()
    try? socket.write("{\"do\":\"status\"}\n".utf8)
    let answer = (try? socket.read(1)) ?? []
    print(answer.isEmpty ? "refused" : "answered")
} else if CommandLine.arguments.count > 5, CommandLine.arguments[1] == "relay" {
    exit(relay(Array(CommandLine.arguments.dropFirst(2))))
} else if CommandLine.arguments.dropFirst().elementsEqual([BlockVMM.word]) {
    FakeVMM(block: BlockVMM()).run()
} else if CommandLine.arguments.count > 2, CommandLine.arguments[1] == "virtiofsd" {
    exit(standInDaemon(Array(CommandLine.arguments.dropFirst(2))))
} else {
    FakeVMM().run()
}
