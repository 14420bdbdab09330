// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Testing

/// Bytes as QEMU 7.2 and its guest agent sent them.
@Suite struct WireTests {
    private func bytes(_ text: String) -> [UInt8] { [UInt8](text.utf8) }

    @Test(arguments: [
        (
            #"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2"}, "capabilities": ["oob"]}}"#,
            QMP.Message.greeting
        ),
        (#"{"return": {}, "id": 1}"#, .value(id: 1, [:])),
        (
            #"{"return": {"status": "running", "singlestep": false, "running": true}, "id": 7}"#,
            .value(id: 7, ["status": "running", "singlestep": false, "running": true])
        ),
        (
            #"{"id": 3, "error": {"class": "GenericError", "desc": "Cannot grow device files"}}"#,
            .failed(id: 3, "Cannot grow device files")
        ),
        (
            #"{"timestamp": {"seconds": 1763640000, "microseconds": 12345}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
            .event(name: "SHUTDOWN", data: ["guest": true, "reason": "guest-reset"])
        ),
        (
            #"{"timestamp": {"seconds": 1763640000, "microseconds": 0}, "event": "STOP"}"#,
            .event(name: "STOP", data: .null)
        ),
    ]) func decodesQMP(_ line: String, _ message: QMP.Message) {
        #expect(QMP.decode(bytes(line)) == message)
    }

    @Test(arguments: ["", "{", "null", "[]", "7", "\u{0}\u{1}", #"{"hello":1}"#])
    func whatIsNoMessageIsNone(_ line: String) {
        #expect(QMP.decode(bytes(line)) == nil)
        #expect(GuestAgent.decode(bytes(line)) == nil)
    }

    @Test func encodesQMP() {
        #expect(
            QMP.Command.capabilities.encoded(id: 1)
                == bytes(#"{"execute":"qmp_capabilities","id":1}"# + "\n"))
        #expect(
            QMP.Command.resizeBlock(node: "disk-data", bytes: 10).encoded(id: 2)
                == bytes(
                    #"{"execute":"block_resize","id":2,"arguments":{"node-name":"disk-data","size":10}}"#
                        + "\n"))
    }

    @Test func encodesAgentRequests() {
        #expect(
            GuestAgent.sync(5)
                == [0xFF]
                + bytes(
                    #"{"execute":"guest-sync-delimited","arguments":{"id":5}}"# + "\n"))
        #expect(
            GuestAgent.command("guest-ping") == bytes(#"{"execute":"guest-ping"}"# + "\n"))
        #expect(
            GuestAgent.exec(["/bin/sh", "-c", "a/b"], input: "aGk=")
                == [
                    "path": "/bin/sh", "arg": ["-c", "a/b"], "capture-output": true,
                    "input-data": "aGk=",
                ])
    }

    @Test func decodesAgentReplies() throws {
        #expect(GuestAgent.decode(bytes(#"{"return": 5}"#)) == .value(5))
        #expect(
            GuestAgent.decode(
                bytes(
                    #"{"error": {"class": "CommandNotFound", "desc": "The command nope has not been found"}}"#
                )) == .failed("The command nope has not been found"))
        let exec = try #require(
            try? JSONValue(
                parsing: bytes(
                    #"{"exitcode": 3, "out-data": "aGVsbG8K", "err-data": "", "exited": true}"#)))
        let ended = try #require(GuestAgent.Ended(exec))
        #expect(ended.code == 3)
        #expect(ended.standardOutput == "aGVsbG8K")
        #expect(GuestAgent.Ended(["exited": false]) == nil)
        #expect(GuestAgent.Ended(["exited": true, "signal": 9])?.code == 137)
    }

    @Test func findsTheGuestsAddresses() throws {
        let reply = """
            [{"name": "lo", "ip-addresses": [
              {"ip-address-type": "ipv4", "ip-address": "127.0.0.1", "prefix": 8},
              {"ip-address-type": "ipv6", "ip-address": "::1", "prefix": 128}]},
             {"name": "eth0", "hardware-address": "02:00:00:00:00:01", "ip-addresses": [
              {"ip-address-type": "ipv4", "ip-address": "10.0.2.15", "prefix": 24},
              {"ip-address-type": "ipv6", "ip-address": "fec0::1", "prefix": 64},
              {"ip-address-type": "ipv6", "ip-address": "fe80::1", "prefix": 64}]},
             {"name": "eth1"}]
            """
        let interfaces = try #require(try? JSONValue(parsing: bytes(reply)))
        #expect(GuestAgent.addresses(interfaces) == ["10.0.2.15", "fec0::1"])
    }

    @Test func linesSurviveAnyCut() {
        let stream = bytes("one\r\ntwo\n\nthree\n")
        for cut in 0...stream.count {
            var buffer = LineBuffer(limit: 100)
            let lines = buffer.append(stream[..<cut]) + buffer.append(stream[cut...])
            #expect(lines == [bytes("one"), bytes("two"), bytes("three")])
        }
    }

    @Test func aLineThatIsTooLongIsDroppedWhole() {
        var buffer = LineBuffer(limit: 4)
        #expect(buffer.append(bytes("12345678\nab\n")) == [bytes("ab")])
    }

    @Test func theDelimiterDropsWhatCameBefore() {
        var buffer = LineBuffer(limit: 100)
        #expect(buffer.append(bytes("{\"ret")) == [])
        #expect(buffer.append([0xFF] + bytes("{}\n")) == [bytes("{}")])
    }
}
