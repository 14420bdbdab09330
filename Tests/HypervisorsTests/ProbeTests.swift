// SPDX-License-Identifier: Apache-2.0
import Glibc
import Hypervisors
import Linux
import Testing

@Suite struct ProbeTests {
    static let intel = "processor\t: 0\nflags\t\t: fpu vme vmx sse\nbugs: \n"
    static let amd = "flags\t\t: fpu svm\n"
    static let nested = "flags\t\t: fpu svme vmxx sse\n"

    @Test(
        arguments: [
            (intel, nil, Accelerator.kvm, nil),
            (amd, nil, .kvm, nil),
            (nested, nil, .tcg, "neither vmx nor svm"),
            ("", nil, .tcg, "neither vmx nor svm"),
            (intel, ENOENT, .tcg, "is missing"),
            (intel, EACCES, .tcg, "group kvm"),
            (intel, EBUSY, .tcg, "does not open"),
        ] as [(String, Int32?, Accelerator, String?)])
    func kvmNeedsTheCPUAndTheDevice(
        _ info: String, _ code: Int32?, _ expected: Accelerator, _ reason: String?
    ) {
        let probe = Accelerator.judge(
            cpuInfo: info, openError: code.map { SystemError("open /dev/kvm", $0) })
        #expect(probe.accelerator == expected)
        #expect((probe.reason == nil) == (reason == nil))
        if let reason { #expect(probe.reason?.contains(reason) == true) }
    }

    @Test(arguments: [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright", "7.2"),
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)", "10.0"),
        ("qemu-img version 7.2.22", nil),
        ("QEMU emulator version seven", nil),
    ]) func readsQEMUsVersion(_ text: String, _ version: String?) {
        #expect(QEMU.Version(parsing: text)?.description == version)
    }

    @Test func versionsCompareAsNumbers() { #expect(QEMU.Version(7, 2) < QEMU.Version(10, 0)) }
}
