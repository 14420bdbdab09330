// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Synchronization

/// The files that images take from elsewhere: `cache/sources/<sha256>`, each checked as it arrives
/// and again before it is used.
///
/// What arrives lies in `<sha256>.part` until its digest fits; a killed martlet leaves that, and
/// the next one goes on where it ended.
struct SourceCache: Sendable {
    let folder: String
    let locks: String
    /// Called with what was received so far and, where it is known, how much there is.
    typealias Progress = @Sendable (String) -> Void

    /// The largest file that is taken.
    static let limit: Int64 = 16 << 30

    init(root: String) {
        folder = "\(root)/cache/sources"
        locks = "\(root)/cache/locks"
    }

    func path(_ digest: String) -> String { "\(folder)/\(digest)" }

    /// The file of a source, fetched unless it is here.
    func file(
        _ source: LayerRecipe.Source, image: String, progress: @escaping Progress
    ) async throws -> String {
        try Files.makeFolder(folder)
        try Files.makeFolder(locks)
        let target = path(source.digest)
        while true {
            if let lock = try FileLock.attempt("\(locks)/source-\(source.digest)") {
                defer { withExtendedLifetime(lock) {} }
                if Files.exists(target) {
                    let found = try await blocking { try SHA256.file(target) }
                    if found == source.digest { return target }
                    // The disk has changed it: no reason to trust any of it.
                    try Files.remove(target)
                }
                let fetch = SourceFetch(
                    source: source, image: image, part: target + ".part", progress: progress)
                try await fetch.run()
                try Files.rename(target + ".part", target)
                try Files.syncFolder(folder)
                return target
            }
            progress("waiting for another martlet that fetches \(source.name)")
            try await Task.sleep(for: .milliseconds(200))
        }
    }
}

/// One file on its way into the cache.
struct SourceFetch: Sendable {
    let source: LayerRecipe.Source
    let image: String
    let part: String
    let progress: SourceCache.Progress

    func run() async throws {
        let flag = Flag()
        try await withTaskCancellationHandler {
            try await blocking {
                source.address.contains("://") ? try download(flag) : try copy()
            }
        } onCancel: {
            flag.set()
        }
    }

    private final class Flag: Sendable {
        private let value = Atomic(false)
        func set() { value.store(true, ordering: .relaxed) }
        var isSet: Bool { value.load(ordering: .relaxed) }
    }

    private func open() throws(SystemError) -> Descriptor {
        let file = try Descriptor.open(source.address, O_RDONLY | O_NONBLOCK)
        var info = stat()
        try check("stat \(source.address)") { fstat(file.raw, &info) }
        guard info.st_mode & S_IFMT == S_IFREG else {
            throw SystemError("open \(source.address)", EINVAL)
        }
        return file
    }

    /// Takes a file of this host.
    private func copy() throws {
        let file: Int32
        do throws(SystemError) {
            file = try open().release()
        } catch {
            throw ImageError.unreadableSource(image: image, error)
        }
        defer { close(file) }
        progress("reading \(source.name)")
        var arrival = try Arrival(part, expected: source.digest, resuming: false)
        defer { arrival.end() }
        while try arrival.take(from: file) > 0 {}
        try conclude(&arrival)
    }

    /// Downloads, and begins anew where a connection breaks.
    private func download(_ flag: Flag) throws {
        let curl = try tool("curl", package: "curl")
        var reason = ""
        var isResuming = true
        for attempt in 0..<5 {
            if attempt > 0 { sleep(UInt32(attempt)) }
            var arrival = try Arrival(part, expected: source.digest, resuming: isResuming)
            defer { arrival.end() }
            let start = arrival.bytes
            let (exit, text) = try receive(curl, &arrival, flag)
            if flag.isSet { throw CancellationError() }
            if exit.isSuccess {
                do {
                    return try conclude(&arrival)
                } catch  where start > 0 {
                    // The rest of another file may have been put to what was there.
                    isResuming = false
                    continue
                }
            }
            reason = text.isEmpty ? "curl ended with \(exit)" : text
            guard case .code(let code) = exit else { break }
            // 33, 36: no ranges there; 22: no such range, perhaps.
            if start > 0, [22, 33, 36].contains(code) {
                isResuming = false
                continue
            }
            // 7, 28, 52, 56, 18, 92: connections that could not be made, or broke.
            guard [7, 18, 28, 52, 55, 56, 92].contains(code), arrival.bytes > start || attempt < 2
            else { break }
        }
        throw ImageError.notFetched(image: image, source: source.address, reason: reason)
    }

    private func conclude(_ arrival: inout Arrival) throws {
        let found = arrival.digest()
        guard found == source.digest else {
            try Files.remove(part)
            throw ImageError.wrongDigest(
                image: image, source: source.address, expected: source.digest, found: found)
        }
        try arrival.sync()
    }

    /// Runs curl once and takes what it writes.
    private func receive(
        _ curl: String, _ arrival: inout Arrival, _ flag: Flag
    ) throws -> (Exit, String) {
        let out = try Pipe().split()
        let err = try Pipe().split()
        let output = Descriptor(owning: out.reader)
        let errors = Descriptor(owning: err.reader)
        var program = Program(curl, SourceFetch.arguments(source.address, from: arrival.bytes))
        program.environment = SourceFetch.environment()
        program.descriptors = [1: out.writer, 2: err.writer]
        program.dieWithParent = SIGKILL
        let child: Child
        do {
            defer {
                close(out.writer)
                close(err.writer)
            }
            child = try program.spawn()
        }
        var shown = Clock.monotonic()
        progress("fetching \(source.name)")
        do {
            while !flag.isSet {
                var one = pollfd(fd: output.raw, events: Int16(POLLIN), revents: 0)
                guard poll(&one, 1, 500) > 0 else { continue }
                guard try arrival.take(from: output.raw) != 0 else { break }
                if Clock.monotonic() - shown >= 2 {
                    shown = Clock.monotonic()
                    progress("fetching \(source.name): \(arrival.bytes >> 20) MiB")
                }
                if arrival.bytes > SourceCache.limit {
                    throw ImageError.notFetched(
                        image: image, source: source.address,
                        reason: "it has more than \(SourceCache.limit >> 30) GiB")
                }
            }
        } catch {
            child.signal(SIGKILL)
            _ = try? child.waitBlocking()
            throw error
        }
        if flag.isSet { child.signal(SIGKILL) }
        let exit = try child.waitBlocking()
        let text = String(decoding: (try? errors.readAll(limit: 1 << 16)) ?? [], as: UTF8.self)
        return (exit, text.split(separator: "\n").last.map(String.init) ?? "")
    }

    /// How curl is run: nothing of what the user has configured counts, and what is given up,
    /// when nothing comes for a minute.
    static func arguments(_ url: String, from offset: Int64) -> [String] {
        var words = ["-q", "--silent", "--show-error", "--fail", "--globoff"]
        // What is on this machine must not take the way over a proxy.
        words += url.hasPrefix("http://") ? ["--proto", "=http", "--noproxy", "*"] : []
        words += url.hasPrefix("http://") ? [] : ["--proto", "=https", "--location"]
        words += ["--proto-redir", "=https", "--max-redirs", "10", "--connect-timeout", "30"]
        words += ["--speed-limit", "1024", "--speed-time", "60"]
        words += ["--max-filesize", String(SourceCache.limit)]
        if offset > 0 { words += ["--continue-at", String(offset)] }
        return words + ["--output", "-", "--", url]
    }

    /// Proxies and certificates are how the outside is reached on many hosts.
    static func environment() -> [String] {
        [
            "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy",
            "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE",
        ].compactMap { name in Linux.environment(name).map { "\(name)=\($0)" } }
            + ["PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"]
    }
}

/// A file that grows, with the digest of what it holds.
private struct Arrival {
    private let file: Int32
    private var hash = SHA256.Stream()
    private(set) var bytes: Int64 = 0
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 4096)

    /// With `resuming`, what an earlier one left counts, and is read once for its digest.
    init(_ path: String, expected: String, resuming: Bool) throws {
        let flags = O_RDWR | O_CREAT | O_NOFOLLOW | (resuming ? 0 : O_TRUNC)
        file = try Descriptor.open(path, flags, mode: 0o600).release()
        while true {
            let count = Glibc.read(file, buffer.baseAddress, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw SystemError("read \(path)") }
            if count == 0 { break }
            add(count)
        }
    }

    private mutating func add(_ count: Int) {
        hash.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        bytes += Int64(count)
    }

    /// Takes what a descriptor has next and returns how much; 0 at the end.
    mutating func take(from source: Int32) throws -> Int {
        var count: Int
        repeat {
            count = Glibc.read(source, buffer.baseAddress, buffer.count)
        } while count < 0 && errno == EINTR
        guard count >= 0 else { throw SystemError("read") }
        try Linux.write(file, UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        add(count)
        return count
    }

    mutating func digest() -> String { hash.finish() }

    func sync() throws { try check("fsync") { fsync(file) } }

    mutating func end() {
        hash.end()
        buffer.deallocate()
        close(file)
    }
}
