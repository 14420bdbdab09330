// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors

// The wire form of requests, replies and events, by hand: `JSONDecoder` reads through most of the
// runtime's tables, and a supervisor would hold on to 5 MiB for it.

extension ControlRequest {
    var wire: JSONValue {
        switch self {
        case .status: ["do": "status"]
        case .stop(let grace): ["do": "stop", "grace": .optional(grace)]
        case .kill: ["do": "kill"]
        case .pause: ["do": "pause"]
        case .unpause: ["do": "unpause"]
        case .restart(let grace): ["do": "restart", "grace": .optional(grace)]
        case .reload: ["do": "reload"]
        case .exec(let arguments, let input, let timeout):
            [
                "do": "exec", "arguments": .texts(arguments), "input": .string(input),
                "timeout": .number(timeout),
            ]
        case .agent(let command, let arguments, let timeout):
            [
                "do": "agent", "command": .string(command), "arguments": arguments,
                "timeout": .number(timeout),
            ]
        case .hypervisor(let command, let arguments):
            ["do": "hypervisor", "command": .string(command), "arguments": arguments]
        case .events: ["do": "events"]
        case .freeze(let pause, let limit):
            ["do": "freeze", "pause": .bool(pause), "limit": .number(limit)]
        case .thaw: ["do": "thaw"]
        case .suspend(let memory): ["do": "suspend", "memory": .string(memory)]
        }
    }

    /// Nil when it is no request that this version knows.
    init?(wire: JSONValue) {
        let grace = wire["grace"]?.number
        let timeout = wire["timeout"]?.number ?? 30
        let command = wire["command"]?.string
        let arguments = wire["arguments"] ?? [:]
        switch wire["do"]?.string {
        case "status": self = .status
        case "stop": self = .stop(grace: grace)
        case "kill": self = .kill
        case "pause": self = .pause
        case "unpause": self = .unpause
        case "restart": self = .restart(grace: grace)
        case "reload": self = .reload
        case "exec":
            let words = arguments.elements.compactMap(\.string)
            guard !words.isEmpty else { return nil }
            let input = wire["input"]?.string ?? ""
            self = .exec(arguments: words, input: input, timeout: timeout)
        case "agent":
            guard let command else { return nil }
            self = .agent(command: command, arguments: arguments, timeout: timeout)
        case "hypervisor":
            guard let command else { return nil }
            self = .hypervisor(command: command, arguments: arguments)
        case "events": self = .events
        case "freeze":
            self = .freeze(
                pause: wire["pause"]?.bool ?? false, limit: wire["limit"]?.number ?? 30)
        case "thaw": self = .thaw
        case "suspend":
            guard let memory = wire["memory"]?.string else { return nil }
            self = .suspend(memory: memory)
        default: return nil
        }
    }
}

extension ControlReply {
    var wire: JSONValue {
        switch self {
        case .done: ["done": true]
        case .status(let status): ["status": status.wire]
        case .stopped(let method, let seconds):
            ["stopped": .optional(method?.rawValue), "seconds": .number(seconds)]
        case .exec(let result):
            [
                "code": JSONValue(result.code), "stdout": .string(result.standardOutput),
                "stderr": .string(result.standardError), "truncated": .bool(result.truncated),
            ]
        case .value(let value): ["value": value]
        case .held(let held): ["frozen": .bool(held.isFrozen), "why": .optional(held.reason)]
        case .released(let end):
            ["held": .bool(end.wasHeld), "seconds": .number(end.seconds)]
        case .failed(let reason): ["failed": .string(reason)]
        }
    }

    /// Nil when it is no reply that this version knows.
    init?(wire: JSONValue) {
        if let reason = wire["failed"]?.string {
            self = .failed(reason)
        } else if let value = wire["value"] {
            self = .value(value)
        } else if let status = wire["status"].flatMap(VMStatus.init(wire:)) {
            self = .status(status)
        } else if let frozen = wire["frozen"]?.bool {
            self = .held(HeldGuest(isFrozen: frozen, reason: wire["why"]?.string))
        } else if let held = wire["held"]?.bool, let seconds = wire["seconds"]?.number {
            self = .released(ReleasedGuest(wasHeld: held, seconds: seconds))
        } else if let method = wire["stopped"], let seconds = wire["seconds"]?.number {
            self = .stopped(
                method: method.string.flatMap(StopMethod.init(rawValue:)), seconds: seconds)
        } else if let code = wire["code"]?.integer {
            self = .exec(
                ExecResult(
                    code: Int32(clamping: code), standardOutput: wire["stdout"]?.string ?? "",
                    standardError: wire["stderr"]?.string ?? "",
                    truncated: wire["truncated"]?.bool ?? false))
        } else if wire["done"]?.bool == true {
            self = .done
        } else {
            return nil
        }
    }
}

extension VMStatus {
    var wire: JSONValue {
        [
            "name": .string(name), "generation": JSONValue(generation),
            "imageDigest": .string(imageDigest), "state": .string(state.rawValue),
            "health": .string(health.rawValue), "failedChecks": .texts(failedChecks),
            "supervisorPid": JSONValue(supervisorPid), "pid": .optional(pid),
            "accelerator": .string(accelerator.rawValue), "startedAt": .optional(startedAt),
            "bootSeconds": .optional(bootSeconds), "restarts": JSONValue(restarts),
            "bootMisses": JSONValue(bootMisses), "guestState": .optional(guestState),
            "failedUnits": .texts(failedUnits), "agent": .bool(agent), "reason": .optional(reason),
        ]
    }

    /// Nil when something is missing without which there is no status.
    init?(wire: JSONValue) {
        func number<T: FixedWidthInteger>(_ key: String) -> T? {
            wire[key]?.integer.flatMap { T(exactly: $0) }
        }
        func word<T: RawRepresentable<String>>(_ key: String) -> T? {
            wire[key]?.string.flatMap { T(rawValue: $0) }
        }
        func texts(_ key: String) -> [String] {
            wire[key]?.elements.compactMap(\.string) ?? []
        }
        guard let name = wire["name"]?.string, let generation: Int = number("generation"),
            let state: VMState = word("state"), let health: Health = word("health"),
            let supervisorPid: Int32 = number("supervisorPid"),
            let accelerator: Hypervisors.Accelerator = word("accelerator")
        else { return nil }
        self.init(
            name: name, generation: generation,
            imageDigest: wire["imageDigest"]?.string ?? "", state: state, health: health,
            failedChecks: texts("failedChecks"), supervisorPid: supervisorPid,
            pid: number("pid"), accelerator: accelerator, startedAt: number("startedAt"),
            bootSeconds: wire["bootSeconds"]?.number, restarts: number("restarts") ?? 0,
            bootMisses: number("bootMisses") ?? 0, guestState: wire["guestState"]?.string,
            failedUnits: texts("failedUnits"), agent: wire["agent"]?.bool ?? false,
            reason: wire["reason"]?.string)
    }
}

extension VMEvent {
    var wire: JSONValue {
        [
            "vm": .string(vm), "at": .integer(at), "kind": .string(kind.rawValue),
            "detail": .optional(detail),
        ]
    }

    init?(wire: JSONValue) {
        guard let vm = wire["vm"]?.string, let at = wire["at"]?.integer,
            let kind = wire["kind"]?.string.flatMap(Kind.init(rawValue:))
        else { return nil }
        self.init(vm: vm, at: at, kind: kind, detail: wire["detail"]?.string)
    }
}

extension JSONValue {
    fileprivate static func texts(_ all: [String]) -> JSONValue {
        .array(all.map(JSONValue.string))
    }
    fileprivate static func optional(_ text: String?) -> JSONValue {
        text.map(JSONValue.string) ?? .null
    }
    fileprivate static func optional(_ number: Double?) -> JSONValue {
        number.map(JSONValue.number) ?? .null
    }
    fileprivate static func optional(_ number: (some BinaryInteger)?) -> JSONValue {
        number.map { JSONValue($0) } ?? .null
    }
}
