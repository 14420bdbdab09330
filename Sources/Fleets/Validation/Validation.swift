// SPDX-License-Identifier: Apache-2.0

/// Checks what no value can know of itself: names, clashes, references, impossible combinations.
func validate(_ fleet: Fleet, _ places: Places) {
    var validator = Validator(fleet, places)
    validator.checkFleet()
    for network in fleet.networks { validator.checkNetwork(network) }
    validator.checkSubnets()
    for network in fleet.networks { validator.checkRoom(network) }
    for image in fleet.images { validator.checkImage(image) }
    for image in fleet.serviceImages {
        validator.checkRecipe(image, "images." + image.name, [])
    }
    validator.checkImageCycles()
    for vm in fleet.vms {
        validator.checkMachine(vm)
        validator.checkHypervisor(vm)
        validator.checkInterfaces(vm)
        validator.checkPorts(vm)
        validator.checkLimits(vm)
        validator.checkPublications(vm)
        validator.checkStorage(vm)
        validator.checkGuest(vm)
        validator.checkCredentials(vm)
        validator.checkLifecycle(vm)
    }
    validator.checkAllow()
    validator.checkOrder()
}

/// Something that only one VM of a host may have.
enum Claim: Hashable, CustomStringConvertible {
    case mac(MACAddress)
    case address(IPv4)
    case tap(String)
    case vsock(UInt32)
    case uuid(MachineUUID)
    case publishedHost(String)
    case pci(PCIAddress)
    case usb(USBIdentifier)
    case blockDevice(String)

    var description: String {
        switch self {
        case .mac(let mac): "the MAC address \(mac)"
        case .address(let address): "the address \(address)"
        case .tap(let name): "the tap name \(name)"
        case .vsock(let number): "the vsock address \(number)"
        case .uuid(let uuid): "the UUID \(uuid)"
        case .publishedHost(let name): "the published host \(name)"
        case .pci(let device): "the PCI device \(device)"
        case .usb(let device): "the USB device \(device)"
        case .blockDevice(let path): "the block device \(path)"
        }
    }
}

private struct ClaimKey: Hashable {
    let host: String?
    let value: Claim
}

/// The checks, one topic per file; what is taken fleet-wide is remembered between VMs.
struct Validator {
    let fleet: Fleet
    let places: Places
    let networks: [String: Network]
    /// Positions in `fleet.vms`; a VM is a large value to copy.
    let vms: [String: Int]
    let images: [String: ImageRecipe]
    private var claims: [ClaimKey: (vm: String, steps: [Step])] = [:]
    /// Host ports by protocol, number and host: who listens on which address.
    var listeners: [Listener.Slot: [Listener]] = [:]
    /// By host.
    var shares: [String: ShareMap] = [:]

    init(_ fleet: Fleet, _ places: Places) {
        self.fleet = fleet
        self.places = places
        networks = Dictionary(fleet.networks.map { ($0.name, $0) }) { first, _ in first }
        vms = Dictionary(fleet.vms.indices.map { (fleet.vms[$0].name, $0) }) { first, _ in first }
        images = Dictionary(fleet.images.map { ($0.name, $0) }) { first, _ in first }
    }

    func fail(_ vm: VM, _ steps: [Step], _ message: String) {
        places.fail("vms." + vm.name, steps, message)
    }

    func warn(_ vm: VM, _ steps: [Step], _ message: String) {
        places.warn("vms." + vm.name, steps, message)
    }

    /// Notes who has something that only one may have, or says who has it already.
    mutating func claim(_ value: Claim, _ vm: VM, _ steps: [Step], _ advice: String) {
        let key = ClaimKey(host: vm.host, value: value)
        if let owner = claims[key] {
            let place = places.place("vms." + owner.vm, owner.steps)
            fail(vm, steps, "\(value) belongs to vms.\(owner.vm) already (\(place)); \(advice)")
        } else {
            claims[key] = (vm.name, steps)
        }
    }

    /// Whether a name of a section was written, even if its entry could not be read.
    func isKnown(_ section: String, _ name: String) -> Bool {
        places.contains(section + "." + name)
    }

    func checkFleet() {
        for (index, name) in fleet.trusted.enumerated() where !isInterfaceName(name) {
            places.fail("trusted[\(index)]", [], interfaceRule(name))
        }
        for secret in fleet.secrets where !isWord(secret.name, 64) {
            places.fail("secrets." + secret.name, [], wordRule(secret.name, 64))
        }
        for host in fleet.hosts {
            let target = host.ssh.split(separator: "@", maxSplits: 1).last ?? ""
            if !isHostName(target) && IPAddress(String(target)) == nil {
                places.fail(
                    "hosts." + host.name, ["ssh"], "expected user@host, found '\(host.ssh)'")
            }
        }
        checkPublishing()
    }

    private func checkPublishing() {
        let publishing = fleet.publishing
        if let email = publishing.email, !email.contains("@") || email.contains(" ") {
            places.fail("publishing", ["email"], "expected an e-mail address, found '\(email)'")
        }
        if !publishing.acme.hasPrefix("https://") {
            places.fail(
                "publishing", ["acme"], "an ACME directory is an address that starts with https://")
        }
        for (index, listen) in publishing.listen.enumerated() where endpoint(listen) == nil {
            places.fail(
                "publishing", ["listen", .index(index)],
                "expected [address]:port such as ':443', found '\(listen)'")
        }
        if publishing.countOfPorts > 2 {
            places.fail(
                "publishing", ["listen"],
                "one port is for HTTP and one for HTTPS, and these are \(publishing.countOfPorts)")
        }
    }
}

/// An address and port to listen on, written `:443` or `127.0.0.1:443`.
package func endpoint(_ text: String) -> (address: IPAddress, port: UInt16)? {
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]),
        port > 0
    else { return nil }
    var host = text[..<colon]
    if host.isEmpty { return (.any, port) }
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    return IPAddress(String(host)).map { ($0, port) }
}

package func isWord(_ text: String, _ limit: Int) -> Bool {
    (1...limit).contains(text.utf8.count) && text.utf8.allSatisfy(isWordByte)
}

func wordRule(_ text: String, _ limit: Int) -> String {
    "'\(text)' is no name: use 1 to \(limit) letters, digits, '-', '_' and '.'"
}

/// The kernel takes up to 15 bytes without '/', ':' and white space.
func isInterfaceName(_ name: String) -> Bool {
    (1...15).contains(name.utf8.count) && name != "." && name != ".."
        && name.utf8.allSatisfy {
            $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":")
        }
}

func interfaceRule(_ name: String) -> String {
    "'\(name)' is no name of a network interface: the kernel takes 1 to 15 characters, "
        + "without '/', ':' and spaces"
}
