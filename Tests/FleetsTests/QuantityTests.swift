// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

@Suite struct QuantityTests {
    @Test(
        arguments: [
            ("512MiB", 512 << 20, "512MiB"), ("1GiB", 1 << 30, "1GiB"),
            ("1024MiB", 1 << 30, "1GiB"),
            ("1.5GiB", 1536 << 20, "1536MiB"), ("0B", 0, "0B"), ("1000B", 1000, "1000B"),
            ("2TiB", 2 << 40, "2TiB"), ("0.5KiB", 512, "512B"),
        ] as [(String, UInt64, String)])
    func size(text: String, bytes: UInt64, printed: String) throws {
        let size = try #require(ByteSize(text))
        #expect(size.bytes == bytes)
        #expect(size.description == printed)
    }

    @Test(arguments: [
        "", "512", "512M", "512MB", "-1GiB", "+1GiB", " 1GiB", "1 GiB", "GiB", "1..5GiB", "1.GiB",
        ".5GiB", "0.3B", "99999999999999999999TiB", "2000000TiB", "1e3MiB", "٣GiB",
    ])
    func noSize(text: String) { #expect(ByteSize(text) == nil) }

    @Test(
        arguments: [
            ("500ms", 500, "500ms"), ("90s", 90_000, "90s"), ("60s", 60_000, "60s"),
            ("5m", 300_000, "300s"), ("10m", 600_000, "10m"), ("1h", 3_600_000, "1h"),
            ("2d", 172_800_000, "2d"), ("1.5s", 1_500, "1500ms"), ("0s", 0, "0s"),
        ] as [(String, Int64, String)])
    func period(text: String, milliseconds: Int64, printed: String) throws {
        let period = try #require(Period(text))
        #expect(period.milliseconds == milliseconds)
        #expect(period.description == printed)
        #expect(Period(printed) == period)
    }

    @Test(arguments: ["", "10", "s", "-1s", "1w", "1.0001s", "200000000000d"])
    func noPeriod(text: String) { #expect(Period(text) == nil) }

    @Test func rates() {
        #expect(ByteRate("50MiB/s")?.bytesPerSecond == 50 << 20)
        #expect(ByteRate("50MiB/s")?.description == "50MiB/s")
        #expect(ByteRate("50MiB") == nil)
        #expect(BitRate("100Mbit/s")?.bitsPerSecond == 100_000_000)
        #expect(BitRate("2.5Gbit/s")?.description == "2500Mbit/s")
        #expect(BitRate("100MBit") == nil)
        #expect(Percent("150%")?.value == 150)
        #expect(Percent("0%") == nil)
        #expect(Percent("150") == nil)
    }
}
