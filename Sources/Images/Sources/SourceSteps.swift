// SPDX-License-Identifier: Apache-2.0

/// The steps that put sources into a layer; pure.
///
/// Their files lie in `$WORK/sources` by their number, unpacked where they were packed, and are
/// seen read-only in the image as /run/martlet-sources: what the image runs cannot change them.
extension LayerSteps {
    static let sourcesFolder = "/run/martlet-sources"
    private static let wheelsFolder = "/run/martlet-wheels"
    private static let certificates = "/run/martlet-certificates"

    /// What `pip` needs in the image, besides the packages that a recipe names.
    static func packages(for sources: [LayerRecipe.Source]) -> [String] {
        sources.contains { $0.requirements != nil } ? ["python3", "python3-pip-whl"] : []
    }

    static func openSources(_ recipe: LayerRecipe) -> [Step] {
        guard !recipe.sources.isEmpty else { return [] }
        return [
            Step(
                title: "opening \(recipe.sources.count) sources",
                script: """
                    mkdir -p "$ROOT\(sourcesFolder)"
                    mount --bind "$WORK/sources" "$ROOT\(sourcesFolder)"
                    mount -o remount,bind,ro "$ROOT\(sourcesFolder)"
                    """)
        ]
    }

    static func putSources(_ recipe: LayerRecipe) -> [Step] {
        guard !recipe.sources.isEmpty else { return [] }
        let debs = recipe.sources.indices.filter { recipe.sources[$0].kind == .deb }
        var steps = debs.isEmpty ? [] : [installFiles(debs)]
        for (index, source) in recipe.sources.enumerated() {
            let to = quote(source.to)
            let from = "\(sourcesFolder)/\(index)"
            switch source.kind {
            case .deb: break
            case .archive:
                steps.append(
                    Step(
                        title: "putting an archive into \(source.to)",
                        script: "inside mkdir -p \(to)\ninside cp -a \(from)/. \(to)/"))
            case .binary(let mode, _):
                let bits = String(mode, radix: 8)
                steps.append(
                    Step(
                        title: "installing \(source.to)",
                        script: "inside install -D -o 0 -g 0 -m \(bits) \(from) \(to)"))
            case .pip: steps.append(fillEnvironment(source, index))
            case .oci: steps.append(putService(from))
            }
        }
        return steps + [
            Step(title: "closing the sources", script: "umount \"$ROOT\(sourcesFolder)\"")
        ]
    }

    /// Packages from files.
    ///
    /// What they depend on is fetched only where it is not there yet.
    private static func installFiles(_ indices: [Int]) -> Step {
        let files = indices.map { "\(sourcesFolder)/\($0).deb" }.joined(separator: " ")
        return Step(
            title: "installing \(indices.count) package files",
            script: """
                mkdir -p "$ROOT/var/cache/apt/archives/partial" \\
                    "$ROOT/var/lib/apt/lists/partial" "$ROOT/var/log/apt"
                mount --bind "$DEBS" "$ROOT/var/cache/apt/archives"
                mkdir -p "$ROOT/var/cache/apt/archives/partial"
                install_files() {
                    inside apt-get -qy -o APT::Sandbox::User=root \\
                        -o Dpkg::Options::=--force-confdef --no-install-recommends "$@" install \\
                        \(files)
                }
                install_files --no-download || {
                    inside apt-get -q -o APT::Sandbox::User=root update
                    install_files
                }
                umount "$ROOT/var/cache/apt/archives"
                """)
    }

    /// The root of an OCI image and the units that run it.
    private static func putService(_ from: String) -> Step {
        Step(
            title: "putting the OCI image into \(OCIUnits.home)",
            script: """
                inside mkdir -p \(OCIUnits.home) \(OCIUnits.state)/volumes
                inside cp -a \(from)/rootfs \(OCIUnits.home)/
                inside install -m 755 \(from)/prepare \(OCIUnits.prepare)
                inside install -m 644 -t /etc/systemd/system \(from)/\(OCIUnits.service) \\
                    \(from)/\(OCIUnits.rootService)
                read -r user group groups <"$ROOT\(from)/account"
                for number in $group $groups; do
                    inside getent group "$number" >/dev/null ||
                        inside groupadd -r -g "$number" "oci-$number"
                done
                inside getent passwd "$user" >/dev/null ||
                    inside useradd -r -M -N -u "$user" -g "$group" -d / -s /usr/sbin/nologin \\
                        "oci-$user"
                inside systemctl -q enable \(OCIUnits.service)
                """)
    }

    /// A virtual environment with what the requirements name, each by its digest.
    ///
    /// The wheels are kept in WHEELS, from which building again needs no network. Debian's own pip
    /// does it, so that none is left in the environment. Compiled modules are made so that they
    /// depend on the content alone: the guest cannot write them.
    private static func fillEnvironment(_ source: LayerRecipe.Source, _ index: Int) -> Step {
        let venv = quote(source.to)
        return Step(
            title: "filling \(source.to) by pip",
            script: """
                mkdir -p "$ROOT\(wheelsFolder)" "$WHEELS/\(source.digest)"
                mount --bind "$WHEELS/\(source.digest)" "$ROOT\(wheelsFolder)"
                cat "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" \\
                    >"$ROOT\(certificates)" || rm -f "$ROOT\(certificates)"
                inside python3 -m venv --without-pip \(venv)
                pip() {
                    inside /bin/sh -euc 'python=$1 && shift && unset SSL_CERT_FILE
                        [ ! -s \(certificates) ] || export PIP_CERT=\(certificates)
                        wheel=$(echo /usr/share/python-wheels/pip-*.whl)
                        exec "$python/bin/python" "$wheel/pip" "$@"' \\
                        pip \(venv) "$@" --disable-pip-version-check --no-input --no-cache-dir \\
                        --require-hashes --only-binary :all: -r \(sourcesFolder)/\(index).txt
                }
                fill() { pip install --no-compile --no-index --find-links \(wheelsFolder); }
                fill || {
                    pip download -d \(wheelsFolder) ${PIP_INDEX_URL:+--index-url "$PIP_INDEX_URL"}
                    fill
                }
                inside \(venv)/bin/python -m compileall -q --invalidation-mode unchecked-hash \\
                    \(venv)/lib
                umount "$ROOT\(wheelsFolder)"
                """)
    }
}
