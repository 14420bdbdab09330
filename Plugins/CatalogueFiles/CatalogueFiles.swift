// SPDX-License-Identifier: Apache-2.0
import Foundation
import PackagePlugin

/// Puts the files of `catalogue/` into the binary: Martlet is one file.
@main struct CatalogueFiles: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
        let folder = context.package.directoryURL.appending(path: "catalogue")
        let output = context.pluginWorkDirectoryURL.appending(path: "CatalogueFiles.swift")
        let files = try FileManager.default.contentsOfDirectory(
            at: folder, includingPropertiesForKeys: nil)
        return [
            .buildCommand(
                displayName: "Embedding the catalogue",
                executable: URL(filePath: "/bin/sh"),
                arguments: [
                    folder.appending(path: "embed").path(), folder.path(), output.path(),
                ],
                inputFiles: files, outputFiles: [output])
        ]
    }
}
