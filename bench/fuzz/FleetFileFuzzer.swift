// SPDX-License-Identifier: Apache-2.0

/// Gives any bytes to the reader of fleet files; `scripts/fuzz` compiles it with the reader's sources.
///
/// Besides crashes, hangs and memory it looks for broken promises: a file has either a fleet or an
/// error, and a VM that was read is the same VM after its record was written and read again.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzFleetFile(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    let file = FleetFile.load("fleet.yaml", from: sources(bytes))
    precondition((file.fleet == nil) == !file.errors.isEmpty, "neither fleet nor error, or both")
    for diagnostic in file.diagnostics {
        precondition(diagnostic.line >= 1 && diagnostic.column >= 1, "no place: \(diagnostic)")
    }
    for vm in file.fleet?.vms.prefix(4) ?? [] {
        let record = vm.json
        let again = try? VM(record: try JSONValue(parsing: record.text(pretty: true)))
        precondition(again?.json == record, "a record that changes: \(record.text())")
        precondition(again?.differences(from: vm).isEmpty == true, "a difference to itself")
        precondition(file.effective(vm.name)?.isEmpty == false, "nothing to show")
    }
    if let json = try? JSONValue(parsing: bytes) {
        precondition((try? JSONValue(parsing: json.text())) == json, "JSON that changes")
    }
    return 0
}

private struct Missing: Error {}

private func sources(_ bytes: [UInt8]) -> FleetFile.Sources {
    var sources = FleetFile.Sources { path in
        switch path {
        case "fleet.yaml": return bytes
        case "a.yaml":
            return Array("imports: [fleet.yaml]\nnetworks: { web: { bridge: br0 } }".utf8)
        default: throw Missing()
        }
    }
    sources.service = { name in
        name == "web"
            ? .init(path: "web.yaml", bytes: Array("vcpu: 2\nhealth: { tcp: 80 }".utf8)) : nil
    }
    sources.overrides["hello"] = .init(path: "o.yaml", bytes: Array("memory: 1GiB".utf8))
    sources.directory = "/srv"
    return sources
}
