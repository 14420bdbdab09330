// SPDX-License-Identifier: Apache-2.0
import Glibc
package import Images
import Linux
import Secrets

/// Carries plans out, and does to single VMs what the verbs ask.
///
/// Everything it does to a host is idempotent and can be derived again: after a kill at any point
/// the next run finds out what is there and goes on from it.
package struct Engine: Sendable {
    package let layout: Layout
    package let store: Store
    package let observer: Observer
    package let images: ImageStore
    package let reporter: Reporter
    let shared: SharedHost
    /// Who runs the VMs of fleets as services; nil where the command line does.
    let services: ServiceManager?
    /// Whether we may give each VM a user of its own.
    package let isRoot: Bool

    package init(
        layout: Layout, reporter: Reporter = .silent, shared: SharedHost = SharedHost()
    ) {
        self.layout = layout
        self.reporter = reporter
        self.shared = shared
        store = Store(layout: layout)
        observer = Observer(store: store)
        images = ImageStore(root: layout.root)
        services = ServiceManager.find(layout, user: geteuid())
        isRoot = geteuid() == 0
    }

    /// Who runs the VMs of fleets as services, or why nobody does.
    package var serviceManager: ServiceManager.Found {
        ServiceManager.look(layout, user: geteuid())
    }

    /// The same engine with another audience.
    package func reporting(to reporter: Reporter) -> Engine {
        Engine(layout: layout, reporter: reporter, shared: shared)
    }

    /// Runs a change of one VM while no other run of martlet changes it.
    func changing<R: Sendable>(
        _ name: String, _ body: (VMLayout) async throws -> R
    ) async throws -> R {
        let files = layout.vm(name)
        try Files.makeFolder(files.path)
        guard let lock = try FileLock.attempt(files.changeLock) else {
            throw StoreError.locked(vm: name)
        }
        if case .newer(let path, let version)? = damage(name) {
            throw StoreError.newer(path: path, version: version)
        }
        await endUnfinishedPicture(files)
        try await removeUnfinished(files)
        try await removeStaleMemory(files)
        let result = try await body(files)
        _ = consume lock
        return result
    }

    /// Removes what a killed run was writing: it is garbage under a name that nobody reads.
    ///
    /// Whoever holds the change lock is the only one who writes here.
    private func removeUnfinished(_ files: VMLayout) async throws {
        await abandonUnfinishedCopies(files)
        try endUnfinishedServers(files)
        let folders = [files.path, files.identity, files.generations, files.disks, files.snapshots]
        for folder in folders + [files.credentials, "\(layout.backups)/\(files.name)"] {
            for name in try Files.list(folder) where name.contains(".new") {
                try Files.remove("\(folder)/\(name)")
            }
        }
        // Here others write under other locks, or, as a supervisor does, under none.
        for folder in [layout.root, layout.overrides, layout.networks, layout.run, files.run] {
            try Files.removeAbandoned(in: folder)
        }
        try secretStore.removeUnfinished()
        await removeUnfinishedSnapshots(files)
        await completeRestore(files)
        await removeImported(files)
        try installOverride(files)
    }
}
