// SPDX-License-Identifier: Apache-2.0
package import Arguments

extension Commands {
    /// The command tree: a verb is declared in its own file and gets its place here.
    package static let root: Command = Command(
        "martlet",
        "Keeps a fleet of isolated microVMs exactly as one file declares it.",
        discussion: """
            `martlet plan` says what would change and what each change costs; `martlet up` makes \
            it so. Guests are immutable: the operating system is a read-only image shared by \
            every VM, and all state sits on one data volume per VM.
            """,
        parameters: [Options.file, Options.json, Options.quiet],
        examples: [
            .init("martlet init", "Write a first fleet file in this folder."),
            .init("martlet help init", "Read about one verb."),
        ],
        sections: [environmentSection, filesSection, exitCodeSection],
        groups: [
            .init(
                "FLEET",
                [
                    InitVerb.command, ValidateVerb.command, ShowVerb.command,
                    SchemaVerb.command, PlanVerb.command, UpVerb.command, LifecycleVerbs.down,
                    ImportVerbs.command,
                ]),
            .init(
                "LIFECYCLE",
                [
                    ListVerb.command, StatusVerb.command, EventsVerb.command, LifecycleVerbs.start,
                    LifecycleVerbs.stop, LifecycleVerbs.restart, LifecycleVerbs.kill,
                    LifecycleVerbs.pause, LifecycleVerbs.unpause, SuspendVerbs.suspend,
                    SuspendVerbs.resume, WaitVerb.command, ResizeVerb.command,
                    DestroyVerbs.recreate, DestroyVerbs.destroy, DestroyVerbs.purge,
                ]),
            .init(
                "ACCESS",
                [
                    AccessVerbs.ssh, AccessVerbs.exec, AccessVerbs.copy, ConsoleVerbs.console,
                    ConsoleVerbs.logs, RunVerb.command,
                    PasswdVerb.command, SecretVerbs.secret, AccessVerbs.connect,
                ]),
            .init(
                "IMAGES",
                [ImageVerbs.build, ImageVerbs.images, ImageVerbs.image, CatalogueVerbs.command]),
            .init(
                "STATE",
                [
                    UpgradeVerb.command, RollbackVerb.command, GenerationsVerb.command,
                    SnapshotVerbs.snapshot, CloneVerb.command, BackupVerbs.command,
                    ScheduleVerbs.schedule,
                ]),
            .init(
                "HOST",
                [
                    NetworksVerb.command, DoctorVerb.command, CompletionVerb.command,
                    VersionVerb.command,
                    ImageVerbs.prune,
                    StageVerbs.prepare, StageVerbs.supervise, StageVerbs.started,
                    StageVerbs.release,
                    RelayVerb.command, SharesVerb.command, CompleteVerb.command,
                    ManualVerb.command,
                ]),
        ])

    private static let environmentSection = Command.Section(
        "ENVIRONMENT",
        [
            ("MARTLET_FLEET", "The fleet file when -f is not given."),
            (
                "MARTLET_ROOT",
                "Where images, disks and identities are kept: else /var/lib/martlet for root, "
                    + "$XDG_DATA_HOME/martlet for others."
            ),
            (
                "MARTLET_RUN",
                "Where sockets and credentials of running VMs are: else /run/martlet for root, "
                    + "$XDG_RUNTIME_DIR/martlet for others."
            ),
            ("NO_COLOR", "When not empty: no colour."),
        ])

    private static let filesSection = Command.Section(
        "FILES",
        [
            ("fleet.yaml", "The fleet file that is looked for in the current folder."),
            ("/etc/martlet/fleet.yaml", "The fleet file of the host."),
        ])

    private static let exitCodeSection = Command.Section(
        "EXIT CODES", ExitCode.allCases.map { ("\($0.rawValue)", $0.meaning) })
}
