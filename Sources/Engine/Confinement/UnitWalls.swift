// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
package import Supervisor

extension Engine {
    /// Becomes the supervisor of a prepared VM, confined as its view says, in a unit of a manager that
    /// puts up no walls itself; returns where `hardening.confine` is false.
    ///
    /// The process confines *itself* and stays what the manager has started: its number, by which
    /// the manager takes notice of messages (`NotifyAccess=exec`), signals and its end, and the
    /// descriptors that were handed to this number. A child would have to be made the main process by
    /// a message, and a supervisor over a supervisor would have to hand on signals and exit codes.
    ///
    /// What was put up around oneself cannot be taken away again, so children find out before which
    /// walls this kernel allows. To be called while the process has one thread: no other may have a
    /// user namespace of its own. Nothing here waits as a task does, for that starts threads.
    package func becomeConfined(_ name: String, manager: Notify = Notify()) throws {
        let files = layout.vm(name)
        let vm = try store.current(name)?.vm ?? VM(name: name)
        guard let view = try processView(vm, files) else { return }
        var program = try putWalls(around: supervisorProgram(name), view, vm, files)
        // The limits are those of the unit, and so is what its manager hands on. The rest of its
        // variables are the user's: what leads to agents and keys is not for a hypervisor.
        program.environment? += Engine.handedOn { environment($0) }
        if let socket = manager.path {
            guard socket.hasPrefix("/") else {
                throw LifecycleError.cannotConfine(
                    vm: name, reason: "the service manager listens at \(socket), which is no file")
            }
            program.sandbox?.places.append(.init(socket, .readable))
        }
        program = try possible(program, vm)
        let error = program.become()
        throw LifecycleError.cannotConfine(
            vm: name, reason: error.step.map { "cannot \($0.text): \(error.reason)" } ?? "\(error)")
    }

    /// What a confined supervisor finds of its service manager in its environment; pure.
    static func handedOn(_ variable: (String) -> String?) -> [String] {
        ([Notify.variable] + Inheritance.managerVariables).compactMap { name in
            variable(name).map { "\(name)=\($0)" }
        }
    }

    /// The program with as many of its walls as a child of ours could have.
    private func possible(_ program: Program, _ vm: VM) throws -> Program {
        var program = program
        while true {
            var trial = program
            trial.arguments = ["version"]
            trial.descriptors = [2: 2]
            do {
                let exit = try trial.spawn().waitBlocking()
                guard exit.isSuccess else {
                    throw LifecycleError.cannotConfine(
                        vm: vm.name, reason: "\(program.path) does not run there: \(exit)")
                }
                return program
            } catch let error as SystemError {
                program = try fewerWalls(program, after: error, vm)
            }
        }
    }
}
