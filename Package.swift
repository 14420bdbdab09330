// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
import PackageDescription

let strict: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .treatAllWarnings(as: .error),
]

/// One room of the house: a target that may import what stands behind its name and nothing else.
func room(
    _ name: String, _ imports: String..., settings: [SwiftSetting] = [],
    plugins: [Target.PluginUsage] = []
) -> Target {
    .target(
        name: name, dependencies: imports.map { .byName(name: $0) },
        swiftSettings: strict + settings, plugins: plugins)
}

/// The tests of one room; `Support` holds what several suites share.
func tests(_ name: String, _ imports: String..., exclude: [String] = []) -> Target {
    .testTarget(
        name: name + "Tests", dependencies: ([name] + imports).map { .byName(name: $0) },
        exclude: exclude, swiftSettings: strict)
}

let package = Package(
    name: "martlet",
    products: [
        .executable(name: "martlet", targets: ["martlet"]),
        // For tests alone, which load it into `martlet`.
        .library(name: "CallTrap", type: .dynamic, targets: ["CallTrap"]),
    ],
    targets: [
        .executableTarget(name: "martlet", dependencies: ["Commands"], swiftSettings: strict),
        room(
            "Commands", "Arguments", "Engine", "Planning", "Images", "Hypervisors", "Networking",
            "Publishing", "Secrets", "Storage", "Supervisor", "Imports", "Fleets", "Linux"),
        room("Arguments"),
        room(
            "Engine", "Planning", "Images", "Hypervisors", "Networking", "Publishing", "Secrets",
            "Storage", "Supervisor", "Fleets", "Linux"),
        room("Supervisor", "Hypervisors", "Fleets", "Linux"),
        room("Images", "Fleets", "Linux", "Archives", plugins: ["GuestPrograms"]),
        .plugin(name: "GuestPrograms", capability: .buildTool()),
        room("Hypervisors", "Fleets", "Linux"),
        room("Networking", "Fleets", "Linux", "CNftables"),
        room("Publishing", "Fleets", "Linux"),
        room("Storage", "Fleets", "Linux", "Archives", "CStorage"),
        room("Secrets", "Fleets", "Linux", "CCrypto"),
        room("Planning", "Fleets"),
        room("Imports", "Fleets", "CExpat"),
        room("Archives", "CStorage"),
        room("Fleets", "CYaml", plugins: ["CatalogueFiles"]),
        .plugin(name: "CatalogueFiles", capability: .buildTool()),
        // Tests hash images and backups, for which unoptimised code takes a hundred times as long.
        room(
            "Linux", "CLinux", "CCrypto", "CSeccomp",
            settings: [.unsafeFlags(["-O"], .when(configuration: .debug))]),
        .target(name: "CLinux", linkerSettings: [.linkedLibrary("crypt")]),
        .target(name: "CSeccomp"),
        .target(name: "CStorage"),
        .target(name: "CExpat"),
        .target(name: "CCrypto"),
        .systemLibrary(
            name: "CYaml", pkgConfig: "yaml-0.1", providers: [.apt(["libyaml-dev"])]),
        .target(name: "CNftables"),
        tests("Hypervisors", "Fleets", "Linux"),
        tests("Supervisor", "Hypervisors", "Fleets", "Linux", "SuperviseTool"),
        .executableTarget(
            name: "SuperviseTool", dependencies: ["Supervisor", "Hypervisors", "Fleets", "Linux"],
            path: "Tests/SuperviseTool", swiftSettings: strict),
        .executableTarget(name: "Probe", path: "Tests/Probe"),
        .target(name: "CallTrap", path: "Tests/CallTrap", publicHeadersPath: "."),
        tests("Fleets", "Support"),
        tests("Linux"),
        tests("Planning", "Fleets"),
        tests("Imports", "Fleets", "Linux", exclude: ["Goldens"]),
        .testTarget(
            name: "GuestTests", dependencies: ["Support", "Fleets", "Linux", "martlet"],
            swiftSettings: strict),
        .target(
            name: "Support", dependencies: ["Fleets", "Linux", "Secrets", "CCrypto"],
            path: "Tests/Support", swiftSettings: strict),
        tests("Arguments"),
        tests("Commands", "Arguments", "Engine", "Fleets", "Linux", "Networking"),
        tests(
            "Engine", "Images", "Networking", "Supervisor", "Fleets", "Linux", "Support",
            "Probe"),
        tests("Storage", "Fleets", "Linux", "Support"),
        tests("Secrets", "Fleets", "Linux", "CCrypto", "Support"),
        tests(
            "Networking", "Fleets", "Linux", "Support",
            exclude: ["Lab/frames.py", "Lab/probe.py"]),
        tests("Publishing", "Fleets", "Linux", "Support", exclude: ["Goldens"]),
        tests("Images", "Archives", "Fleets", "Linux", "Support"),
    ],
    swiftLanguageModes: [.v6]
)
