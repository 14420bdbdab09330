// SPDX-License-Identifier: Apache-2.0
import Glibc
import Hypervisors
import Linux

/// The connection of one hypervisor to the daemon of one share.
///
/// We hold it as well, and never read from it: its end tells that the daemon is gone, whatever the
/// hypervisor makes of that, and of which hypervisor's daemon it tells.
final class ShareLink {
    let tag: String
    let fd: Int32
    private let reactor: Reactor

    init(_ share: LaunchSpec.Share, _ reactor: Reactor) throws(SystemError) {
        tag = share.tag
        fd = try UnixSocket.connect(share.socket, timeout: 5).release()
        self.reactor = reactor
    }

    /// Calls once when the daemon's end is closed.
    func onEnd(_ body: @escaping () -> Void) {
        reactor.onHangUp(fd) { [unowned self] in
            reactor.forget(fd)
            body()
        }
    }

    deinit {
        reactor.forget(fd)
        close(fd)
    }
}

/// What the keeper of the shares says, over the channel that whoever started us has opened.
final class ShareChannel {
    private let fd: Int32
    private let reactor: Reactor
    private var lines = LineBuffer(limit: 4096)
    /// The last words on each daemon that ended, by tag.
    private(set) var endings: [String: String] = [:]
    /// Why there are no shares any more; nil while the keeper runs.
    private(set) var failure: String?
    var onEnd: (() -> Void)?

    /// Nil when the VM has no shares.
    init?(_ spec: LaunchSpec, _ inherited: Inheritance, _ reactor: Reactor) throws {
        guard !spec.shares.isEmpty else { return nil }
        guard let number = inherited.shares else { throw SupervisorError.noShares(spec.name) }
        try setNonBlocking(number)
        fd = number
        self.reactor = reactor
        reactor.onReadable(fd) { [unowned self] in receive() }
    }

    private func receive() {
        let bytes: [UInt8]
        do {
            bytes = try read(fd, 4096)
        } catch {
            if error.code == EAGAIN { return }
            bytes = []
        }
        for line in lines.append(bytes) { take(String(decoding: line, as: UTF8.self)) }
        guard bytes.isEmpty else { return }
        reactor.forget(fd)
        failure = failure ?? "what serves its shares was killed"
        onEnd?()
    }

    private func take(_ line: String) {
        let words = line.split(separator: " ", maxSplits: 2).map(String.init)
        switch words.first {
        case "ended" where words.count == 3: endings[words[1]] = words[2]
        case "failed": failure = String(line.dropFirst("failed ".count))
        default: break
        }
    }
}

extension Supervisor {
    var whyNoShares: String {
        "its shares are not served any more: \(shareChannel?.failure ?? "")"
    }

    /// A guest whose share has lost its daemon waits for it for ever: it is started again.
    func watchShares(of machine: Machine) {
        for link in machine.shares {
            let tag = link.tag
            link.onEnd { [unowned self, weak machine] in
                // By then its last words are here, and a hypervisor that was ending has ended.
                reactor.arm("share-\(tag)", after: 1) { [unowned self, weak machine] in
                    guard let machine, machine === self.machine else { return }
                    let why = shareChannel?.endings[tag].map { ": \($0)" } ?? ""
                    handle(.shareLost("the daemon of the share '\(tag)' ended" + why))
                }
            }
        }
    }
}
