// SPDX-License-Identifier: Apache-2.0

/// A named piece of the script that builds a layer.
package struct Step: Sendable, Equatable {
    /// What the progress shows, such as `installing 4 packages`.
    package let title: String
    package let script: String
}

/// Turns a recipe into the steps that build its layer; pure.
///
/// The steps form one shell script that runs in namespaces of its own: whatever ends it, its
/// mounts and processes end with it. It finds its paths in the environment: WORK (a fresh folder),
/// DEBS (downloaded packages, kept), WHEELS (the same for Python), PARENTS (files of the layers below, the lowest first,
/// separated by colons), SOURCE (a mirror's address, or empty for mmdebstrap's own).
package enum LayerSteps {
    /// The Debian release of the guest's programs, and the one that its kernel comes from: the
    /// newer kernel crashes under QEMU 7.2 without KVM.
    package static let suite = "trixie"
    package static let kernelSuite = "bookworm"
    /// The time of all files, 2025-01-01.
    ///
    /// The same recipe gives the same bytes on any day.
    package static let epoch = 1_735_689_600

    /// Bytes of the blocks that a layer's hash tree is of.
    static let block: Int64 = 4096

    /// The lowest layer: Debian's own packages and the kernel's modules.
    package static func base(_ recipe: LayerRecipe) -> [Step] {
        [
            Step(title: "downloading the kernel", script: kernel),
            Step(
                title: "installing Debian \(suite) with \(recipe.packages.count) packages",
                script: bootstrap(recipe.packages)),
            Step(
                title: "preparing the tree",
                script: """
                    ROOT="$WORK/tree"
                    mkdir -p "$ROOT/usr/lib/modules"
                    cp -a "$WORK/kernel/files/lib/modules/." "$ROOT/usr/lib/modules/"
                    mount --bind "$ROOT" "$ROOT"
                    """),
            enter,
        ] + configure(recipe) + [
            Step(title: "cleaning up", script: clean + "\n" + moveState),
            pack(from: "$WORK/tree"),
        ]
    }

    /// A layer on top of others: an overlay records what its packages, files and scripts change.
    package static func delta(_ recipe: LayerRecipe) -> [Step] {
        let packages = Set(recipe.packages + LayerSteps.packages(for: recipe.sources))
        return [
            Step(title: "stacking the layers below", script: stack),
            Step(title: "preparing the tree", script: openState),
            enter,
        ] + openSources(recipe) + [
            Step(
                title: "installing \(packages.count) packages", script: install(Array(packages)))
        ] + putSources(recipe) + configure(recipe) + [
            Step(title: "cleaning up", script: clean + "\n" + closeState),
            pack(from: "$WORK/upper"),
        ]
    }

    /// The whole script, as `/bin/sh` runs it.
    package static func render(_ steps: [Step]) -> String {
        prelude + steps.map { "\nstep \(quote($0.title))\n\($0.script)\n" }.joined()
    }

    /// A word for the shell.
    package static func quote(_ text: String) -> String {
        "'"
            + text.split(separator: "'", omittingEmptySubsequences: false)
            .joined(separator: "'\\''") + "'"
    }

    private static let prelude = """
        set -eu
        # Descriptor 3 ends with the martlet that started us: then everything here ends too.
        { cat <&3 >/dev/null || true; kill -KILL -1; } &
        exec 3<&- 4>&2 >"$WORK/log" 2>&1
        step() { printf '%s\\n' "$1" >&4; printf '== %s\\n' "$1"; }
        umask 022
        export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive HOME=/root SOURCE_DATE_EPOCH=\(epoch)
        unset LANGUAGE TMPDIR XDG_RUNTIME_DIR

        """

    private static let kernel = """
        mkdir -p "$WORK/kernel/files"
        export KERNEL="$WORK/kernel"
        mmdebstrap --mode=root --variant=extract --format=directory --quiet \\
            --extract-hook='cd "$KERNEL" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" &&
                name=$(apt-cache depends linux-image-cloud-amd64 |
                    sed -n "s/.*Depends: \\(linux-image-6[^ ]*\\)/\\1/p") &&
                apt-get -q -o APT::Sandbox::User=root download "$name"' \\
            \(kernelSuite) "$KERNEL/root" ${SOURCE:+"$SOURCE"}
        dpkg-deb -f "$KERNEL"/*.deb Package Version >"$KERNEL/package"
        dpkg-deb -x "$KERNEL"/*.deb "$KERNEL/files"
        """

    private static func bootstrap(_ packages: [String]) -> String {
        """
        mmdebstrap --mode=root --variant=apt --format=directory --quiet \\
            --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \\
            --dpkgopt='path-exclude=/usr/share/doc/*' \\
            --dpkgopt='path-include=/usr/share/doc/*/copyright' \\
            --dpkgopt='path-exclude=/usr/share/info/*' \\
            --dpkgopt='path-exclude=/usr/share/locale/*' \\
            --dpkgopt='path-exclude=/usr/share/man/*' \\
            --skip=essential/unlink \\
            --setup-hook='mkdir -p "$1/var/cache/apt/archives" &&
                find "$DEBS" -maxdepth 1 -name "*.deb" -exec cp -l -t "$1/var/cache/apt/archives" {} +' \\
            --customize-hook='find "$1/var/cache/apt/archives" -maxdepth 1 -name "*.deb" \\
                -exec cp -ln -t "$DEBS" {} +' \\
            --include=\(quote(packages.sorted().joined(separator: ","))) \\
            \(suite) "$WORK/tree" ${SOURCE:+"$SOURCE"}
        """
    }

    private static let stack = """
        ROOT="$WORK/root"
        mkdir -p "$WORK/upper" "$WORK/overlay" "$ROOT"
        lower= number=0
        IFS=:
        for layer in $PARENTS; do
            mkdir -p "$WORK/parents/$number"
            mount -t erofs -o loop,ro "$layer" "$WORK/parents/$number"
            lower="$WORK/parents/$number${lower:+:$lower}"
            number=$((number + 1))
        done
        unset IFS
        mount -t overlay -o "lowerdir=$lower,upperdir=$WORK/upper,workdir=$WORK/overlay" \\
            -o redirect_dir=off,index=off,metacopy=off overlay "$ROOT"
        """

    /// At run time the data volume is on /var, /home and /root; the image has what they start with
    /// in a factory folder, and packages change it there.
    private static let openState = """
        mount --bind "$ROOT/usr/share/factory/var" "$ROOT/var"
        mount --bind "$ROOT/var/home" "$ROOT/home"
        mount --bind "$ROOT/var/roothome" "$ROOT/root"
        """

    private static let closeState = """
        umount "$ROOT/root" "$ROOT/home" "$ROOT/var" "$ROOT"
        # What overlayfs notes for itself differs from build to build; "opaque" must stay.
        for name in origin impure nlink uuid; do
            find "$WORK/upper" -exec setfattr -h -x "trusted.overlay.$name" {} + 2>/dev/null || true
        done
        """

    private static let moveState = """
        mkdir -p "$ROOT/usr/share/factory"
        mv "$ROOT/root" "$ROOT/var/roothome"
        mv "$ROOT/home" "$ROOT/var/home"
        mv "$ROOT/var" "$ROOT/usr/share/factory/var"
        mkdir "$ROOT/var" "$ROOT/home" "$ROOT/root"
        chmod 0700 "$ROOT/root"
        umount "$ROOT"
        """

    /// Makes the tree a place where maintainer scripts work and no service starts.
    private static let enter = Step(
        title: "entering the tree",
        script: """
            for folder in run tmp; do mount -t tmpfs -o mode=1777 tmpfs "$ROOT/$folder"; done
            chmod 0755 "$ROOT/run"
            mount -t proc proc "$ROOT/proc"
            mount -t tmpfs -o mode=0755 tmpfs "$ROOT/dev"
            for node in null zero full random urandom tty; do
                touch "$ROOT/dev/$node"
                mount --bind "/dev/$node" "$ROOT/dev/$node"
            done
            mkdir "$ROOT/dev/pts" "$ROOT/dev/shm"
            ln -s /proc/self/fd "$ROOT/dev/fd"
            mkdir -p "$ROOT/run/martlet" "$ROOT/run/martlet-files"
            cp /etc/resolv.conf /etc/hosts "$ROOT/run/martlet/" 2>/dev/null || true
            mount --bind "$WORK/files" "$ROOT/run/martlet-files"
            printf '#!/bin/sh\\nexit 101\\n' >"$ROOT/usr/sbin/policy-rc.d"
            chmod 0755 "$ROOT/usr/sbin/policy-rc.d"
            inside() { chroot "$ROOT" /usr/bin/env -u WORK -u DEBS -u PARENTS -u SOURCE \\
                PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
            """)

    private static func install(_ packages: [String]) -> String {
        guard !packages.isEmpty else { return ":" }
        let names = packages.sorted().map(quote).joined(separator: " ")
        return """
            mkdir -p "$ROOT/var/cache/apt/archives/partial" "$ROOT/var/lib/apt/lists/partial" \\
                "$ROOT/var/log/apt"
            mount --bind "$DEBS" "$ROOT/var/cache/apt/archives"
            mkdir -p "$ROOT/var/cache/apt/archives/partial"
            inside apt-get -q -o APT::Sandbox::User=root update
            inside apt-get -qy -o APT::Sandbox::User=root -o Dpkg::Options::=--force-confdef \\
                --no-install-recommends install \(names)
            umount "$ROOT/var/cache/apt/archives"
            """
    }

    private static func configure(_ recipe: LayerRecipe) -> [Step] {
        var steps: [Step] = []
        if !recipe.files.isEmpty {
            let lines = recipe.files.enumerated().map { index, file in
                let mode = String(file.mode, radix: 8)
                return "inside install -D -o 0 -g 0 -m \(mode) /run/martlet-files/\(index) "
                    + quote(file.path)
            }
            steps.append(
                Step(
                    title: "writing \(recipe.files.count) files",
                    script: lines.joined(separator: "\n")))
        }
        for (index, script) in recipe.run.enumerated() where !script.isEmpty {
            steps.append(
                Step(
                    title: "running script \(index + 1) of \(recipe.run.count)",
                    script: "inside /bin/sh -euc \(quote(script))"))
        }
        return steps
    }

    /// Takes away what differs from build to build, or belongs to one machine.
    private static let clean = """
        rm -f "$ROOT/usr/sbin/policy-rc.d"
        for node in null zero full random urandom tty; do umount "$ROOT/dev/$node"; done
        umount "$ROOT/run/martlet-files" "$ROOT/proc" "$ROOT/dev" "$ROOT/tmp" "$ROOT/run"
        inside dpkg-query -W -f '${Package} ${Version}\\n' >"$WORK/packages"
        if [ -d "$WORK/kernel" ]; then
            sed -n 'N;s/^Package: \\(.*\\)\\nVersion: \\(.*\\)/\\1 \\2/p' "$WORK/kernel/package" \\
                >>"$WORK/packages"
        fi
        (
            cd "$ROOT"
            rm -rf var/cache/apt/* var/lib/apt/lists/* var/tmp/* var/backups/* run/* tmp/*
            # The folders stay: a service that logs does not start without its own.
            find var/cache var/log ! -type d -delete
            rm -f etc/.pwd.lock etc/.updated var/.updated etc/hostname etc/*- \\
                etc/ssh/ssh_host_*_key* var/lib/dbus/machine-id var/lib/systemd/random-seed \\
                var/lib/dpkg/*-old var/lib/dpkg/lock* var/lib/dpkg/triggers/Lock \\
                var/lib/apt/lists/lock usr/lib/sysimage/dpkg/*-old usr/lib/sysimage/dpkg/lock* \\
                usr/lib/sysimage/dpkg/triggers/Lock
            [ ! -s etc/machine-id ] || : >etc/machine-id
            [ -e etc/machine-id ] || : >etc/machine-id
            find usr/lib usr/share -depth -type d -name __pycache__ -exec rm -rf {} +
        )
        """

    /// The file system, and behind it the hash tree by which guests check what they read of it.
    ///
    /// Without a salt and a header of its own, which would have a random number in it, the tree is
    /// the same for the same content.
    private static func pack(from folder: String) -> Step {
        Step(
            title: "packing the layer",
            script: """
                mkfs.erofs -zlz4hc -T \(epoch) -U "$UUID" "$WORK/layer.erofs" "\(folder)" >/dev/null
                bytes=$(stat -c %s "$WORK/layer.erofs")
                veritysetup format --no-superblock --hash=sha256 --salt=- \\
                    --data-block-size=\(block) --hash-block-size=\(block) \\
                    --data-blocks=$((bytes / \(block))) --hash-offset="$bytes" \\
                    "$WORK/layer.erofs" "$WORK/layer.erofs" >"$WORK/hashes"
                printf '%s %s\\n' "$bytes" "$(sed -n 's/^Root hash:[[:space:]]*//p' "$WORK/hashes")" \\
                    >"$WORK/verity"
                """)
    }
}
