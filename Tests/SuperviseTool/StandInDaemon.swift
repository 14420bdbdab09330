// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// A daemon of a share that serves nothing: it tries to write where it was told to serve, says how
/// that went, and stays as long as its one connection does.
func standInDaemon(_ words: [String]) -> Int32 {
    let options = words.flatMap { $0.split(separator: ",") }
    let folder = options.compactMap { option -> String? in
        for name in ["source=", "--shared-dir="] where option.hasPrefix(name) {
            return String(option.dropFirst(name.count))
        }
        return nil
    }.first
    guard let folder, words.contains("--fd=3"), let client = try? UnixSocket.accept(3) else {
        return 2
    }
    do throws(SystemError) {
        _ = try Descriptor.open(folder + "/probe", O_WRONLY | O_CREAT)
        say("wrote in \(folder)")
    } catch {
        say("\(error.reason) in \(folder)")
    }
    while let bytes = try? client.read(4096), !bytes.isEmpty {}
    return 0
}

private func say(_ line: String) { try? write(2, (line + "\n").utf8) }
