// SPDX-License-Identifier: Apache-2.0
import Foundation
import PackagePlugin

/// Compiles the programs of `guest/` and puts them, with the image's own files, into the binary:
/// Martlet is one file, and what runs inside a guest always fits to it.
@main struct GuestPrograms: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
        let guest = context.package.directoryURL.appending(path: "guest")
        let output = context.pluginWorkDirectoryURL.appending(path: "GuestFiles.swift")
        let files = FileManager.default.enumerator(
            at: guest, includingPropertiesForKeys: [.isRegularFileKey])
        let inputs = (files?.allObjects ?? []).compactMap { $0 as? URL }.filter {
            (try? $0.resourceValues(forKeys: [.isRegularFileKey]).isRegularFile) == true
        }
        return [
            .buildCommand(
                displayName: "Compiling the guest's programs",
                executable: URL(filePath: "/bin/sh"),
                arguments: [
                    guest.appending(path: "embed").path(), guest.path(),
                    context.pluginWorkDirectoryURL.path(), output.path(),
                ],
                inputFiles: inputs, outputFiles: [output])
        ]
    }
}
