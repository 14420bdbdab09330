// SPDX-License-Identifier: Apache-2.0
import CNftables
package import Fleets
import Glibc

/// Rules that the kernel refused, in libnftables' words.
package struct NftablesError: Error, Equatable, CustomStringConvertible {
    package let text: String
    package var description: String { "nftables: \(text)" }
}

/// The packet filter of the calling thread's network namespace, through libnftables.
///
/// Text goes in and JSON comes out: version 1.0.6 lists maps with concatenated data as JSON and
/// cannot read them back. A context costs little, so each call has one of its own.
package enum Nftables {
    /// Runs commands as one transaction: all of them take effect, or none.
    ///
    /// The corresponding C function is `nft_run_cmd_from_buffer`.
    package static func run(_ commands: String) throws(NftablesError) {
        _ = try execute(commands)
    }

    /// Asks the kernel whether it would take the commands, and leaves nothing behind.
    package static func check(_ commands: String) throws(NftablesError) {
        _ = try execute(commands, checkOnly: true)
    }

    /// The objects that a `list` command names, as the elements of libnftables' `nftables` array.
    package static func list(_ command: String) throws(NftablesError) -> [JSONValue] {
        let text = try execute(command, json: true)
        guard let document = try? JSONValue(parsing: text) else {
            throw NftablesError(text: "'\(command)' did not answer in JSON")
        }
        return document["nftables"]?.elements ?? []
    }

    private static func execute(
        _ commands: String, json: Bool = false, checkOnly: Bool = false
    ) throws(NftablesError) -> String {
        if let problem = nft_missing() {
            throw NftablesError(
                text: "\(text(problem)) (the Debian package libnftables1 has it)")
        }
        try awaitLowDescriptor()
        guard let context = nft_ctx_new(UInt32(NFT_CTX_DEFAULT)) else {
            throw NftablesError(text: "no memory")
        }
        defer { nft_ctx_free(context) }
        nft_ctx_buffer_output(context)
        nft_ctx_buffer_error(context)
        if json {
            nft_ctx_output_set_flags(
                context, UInt32(NFT_CTX_OUTPUT_JSON | NFT_CTX_OUTPUT_NUMERIC_ALL))
        }
        if checkOnly { nft_ctx_set_dry_run(context, true) }
        guard nft_run_cmd_from_buffer(context, commands) == 0 else {
            throw NftablesError(text: text(nft_ctx_get_error_buffer(context)))
        }
        return text(nft_ctx_get_output_buffer(context))
    }

    /// Waits until the library's socket will have a number that it can use.
    ///
    /// It waits for the kernel with `select`, which ends the process for a descriptor above 1023.
    private static func awaitLowDescriptor() throws(NftablesError) {
        for _ in 0..<600 {
            let next = fcntl(2, F_DUPFD_CLOEXEC, 3)
            if next >= 0 { close(next) }
            if (0..<1000).contains(next) { return }
            usleep(50_000)
        }
        throw NftablesError(text: "more than 1000 descriptors are open")
    }

    private static func text(_ buffer: UnsafePointer<CChar>?) -> String {
        let text = buffer.map { String(cString: $0) } ?? ""
        return text.hasSuffix("\n") ? String(text.dropLast()) : text
    }
}
