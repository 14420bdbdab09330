// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets

/// `status --security`: what holds for the processes of one VM, and what its guest says of itself.
enum SecurityView {
    /// A guest that does not answer hides nothing of what the host knows.
    static func show(_ session: Session, _ name: String) async throws {
        let report = try await session.engine.security(of: name)
        let guest: Result<GuestHardening, any Error>
        do {
            guest = .success(try await session.engine.guestHardening(of: name))
        } catch {
            guest = .failure(error)
        }
        if session.printer.isJSON { return session.printer.document(json(report, guest)) }
        session.printer.table(table(report, guest))
    }

    static func table(
        _ report: SecurityReport, _ guest: Result<GuestHardening, any Error>
    ) -> Table {
        var table = Table(["PROCESS", "PID", "WHAT", "HOLDS", "FOUND"])
        for row in report.rows {
            table.add([
                .init(row.process), .init(row.pid > 0 ? "\(row.pid)" : nil), .init(row.item),
                .init(
                    row.holds.map { $0 ? "yes" : "no" } ?? "unknown",
                    row.holds.map { $0 ? .good : .error } ?? .warning), .init(row.detail),
            ])
        }
        switch guest {
        case .success(let hardening):
            for row in hardening.rows {
                table.add([
                    .init("guest"), .init(nil), .init(row.setting),
                    .init(row.holds, row.holds == "no" ? .error : row.holds == "yes" ? .good : nil),
                    .init(row.words),
                ])
            }
        case .failure(let error):
            table.add([
                .init("guest"), .init(nil), .init("kernel"), .init("unknown", .warning),
                .init(Failure(error).message),
            ])
        }
        return table
    }

    static func json(
        _ report: SecurityReport, _ guest: Result<GuestHardening, any Error>
    ) -> JSONValue {
        [
            "vm": .string(report.vm),
            "rows": .array(
                report.rows.map { row in
                    [
                        "process": .string(row.process), "pid": JSONValue(row.pid),
                        "item": .string(row.item),
                        "holds": row.holds.map { .bool($0) } ?? .null,
                        "detail": .string(row.detail),
                    ]
                }),
            "guest": (try? guest.get())?.json ?? .null,
        ]
    }
}
