// SPDX-License-Identifier: Apache-2.0
import Linux
import Support
import Testing

/// Files in the shape of what services are shipped in, made on the spot.
struct MadeUpSources {
    let files: [String: [UInt8]]

    func pin(_ name: String) -> String { SHA256.hex(files[name] ?? []) }

    init() throws {
        let folder = try TemporaryFolder()
        let script = """
            cd "$0"
            mkdir -p App/App.Update deb/DEBIAN deb/usr/bin
            printf '#!/bin/sh\\necho app\\n' | tee App/App deb/usr/bin/greet forge >/dev/null
            chmod 755 App/App deb/usr/bin/greet
            cp App/App App/App.Update/
            tar -cJf app.tar.xz --owner=1001 --group=1001 App
            printf '%s\\n' 'Package: greeter' 'Version: 1.0' 'Architecture: all' 'Depends: coreutils' \\
                'Maintainer: x <x@example.org>' 'Description: greets' >deb/DEBIAN/control
            dpkg-deb --root-owner-group --build deb greeter.deb >/dev/null
            python3 -c '
            import zipfile
            info = "greeter-1.0.dist-info/"
            with zipfile.ZipFile("greeter-1.0-py3-none-any.whl", "w") as z:
                z.writestr("greeter.py", "word = \\"hello\\"\\n")
                z.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: greeter\\nVersion: 1.0\\n")
                z.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
                z.writestr(info + "RECORD", "greeter.py,,\\n")
            '
            """
        let program = Program("/bin/sh", ["-euc", script, folder.path])
        let exit = try program.spawn().waitBlocking()
        try #require(exit.isSuccess)
        var files: [String: [UInt8]] = [:]
        for name in ["app.tar.xz", "forge", "greeter.deb", "greeter-1.0-py3-none-any.whl"] {
            files[name] = try Files.read("\(folder.path)/\(name)")
        }
        self.files = files
    }
}
