// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets

/// `status --security`: what holds for the processes of one VM.
enum SecurityView {
    static func show(_ session: Session, _ name: String) async throws {
        let report = try await session.engine.security(of: name)
        if session.printer.isJSON { return session.printer.document(json(report)) }
        session.printer.table(table(report))
    }

    static func table(_ report: SecurityReport) -> Table {
        var table = Table(["PROCESS", "PID", "WHAT", "HOLDS", "FOUND"])
        for row in report.rows {
            table.add([
                .init(row.process), .init(row.pid > 0 ? "\(row.pid)" : nil), .init(row.item),
                .init(
                    row.holds.map { $0 ? "yes" : "no" } ?? "unknown",
                    row.holds.map { $0 ? .good : .error } ?? .warning), .init(row.detail),
            ])
        }
        return table
    }

    static func json(_ report: SecurityReport) -> JSONValue {
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
        ]
    }
}
