// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Synchronization

/// What is going on, per item: a live block on a terminal, one plain line per step elsewhere.
///
/// Steps go to standard error. How an item ended is a result: it goes to standard output, unless
/// that is reserved for a JSON document; a failure always goes to standard error.
/// Safe to call from any task or thread.
package final class Progress: Sendable {
    enum Style: Sendable { case live, plain, silent }

    private struct Item {
        let name: String
        var step: String
        let began: UInt64
    }

    private struct State {
        var items: [Item] = []
        /// Lines of the live block that are on the screen now.
        var shown = 0
        var frame = 0
        var isOver = false
    }

    private static let spinner = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"]

    private let screen: Terminal
    private let results: Terminal?
    private let style: Style
    private let now: @Sendable () -> UInt64
    private let state = Mutex(State())

    /// `screen` shows steps, `results` the results; `now` counts nanoseconds.
    init(
        _ screen: Terminal, results: Terminal?, _ style: Style,
        now: @escaping @Sendable () -> UInt64 = { Clock.monotonic() }
    ) {
        self.screen = screen
        self.results = results
        self.style = style
        self.now = now
    }

    /// Says what an item is doing now; the first step of an item starts its clock.
    package func step(_ name: String, _ step: String) {
        state.withLock { state in
            let index = state.items.firstIndex { $0.name == name }
            if let index {
                if state.items[index].step == step { return }
                state.items[index].step = step
            } else {
                state.items.append(Item(name: name, step: step, began: now()))
            }
            // The live block shows the step; elsewhere it is a line of its own.
            show(style == .plain ? "\(name): \(step)\n" : "", on: screen, &state)
        }
    }

    /// Says that an item is done and how it went: `started`, `image not found`.
    package func finish(_ name: String, _ result: String, ok: Bool = true) {
        state.withLock { state in
            let index = state.items.firstIndex { $0.name == name }
            let item = index.map { state.items.remove(at: $0) }
            let took = item.map { Double(now() - $0.began) / 1e9 }
            let time = took.map { $0 < 0.05 ? "" : " (\(Units.duration(seconds: $0)))" } ?? ""
            let line = visible("\(name): " + (ok ? "" : "failed: ") + "\(result)\(time)")
            let target = ok ? results ?? screen : screen
            if style == .silent, ok, results == nil { return }
            let mark = ok ? target.paint("✓ ", .good) : target.paint("✗ ", .error)
            show((target.isTerminal ? mark : "") + line + "\n", on: target, &state)
        }
    }

    /// Says something beside the steps.
    package func note(_ text: String) {
        guard style != .silent else { return }
        state.withLock { show(visible(text) + "\n", on: screen, &$0) }
    }

    /// Moves the spinners and clocks on.
    func tick() {
        state.withLock { state in
            guard !state.isOver else { return }
            state.frame += 1
            show("", on: screen, &state)
        }
    }

    /// Takes the live block off the screen; what has finished stays.
    func end() {
        state.withLock { state in
            state.items = []
            state.isOver = true
            show("", on: screen, &state)
        }
    }

    /// Writes a text; the live block makes room for it and is drawn again below.
    private func show(_ text: String, on target: Terminal, _ state: inout State) {
        // Up to the first line of the block, and clear to the end of the screen.
        let clear = state.shown > 0 ? "\u{1b}[\(state.shown)A\r\u{1b}[J" : ""
        let size = screen.size
        let block = style == .live ? liveLines(state, rows: size.rows - 1) : []
        let drawn = block.map { truncate(visible($0), to: size.columns - 1) + "\n" }.joined()
        state.shown = block.count
        if text.isEmpty {
            // One write: two would flicker.
            put(clear + drawn, screen)
        } else {
            put(clear, screen)
            put(text, target)
            put(drawn, screen)
        }
    }

    private func liveLines(_ state: State, rows: Int) -> [String] {
        let time = now()
        let spinner = Progress.spinner[state.frame % Progress.spinner.count]
        var lines = state.items.map { item in
            let seconds = Double(time - item.began) / 1e9
            return "\(spinner) \(item.name): \(item.step)  \(Units.duration(seconds: seconds))"
        }
        if lines.count > rows, rows > 1 {
            let hidden = lines.count - rows + 1
            lines = lines.prefix(rows - 1) + ["  and \(hidden) more"]
        }
        return lines
    }

    private func put(_ text: String, _ target: Terminal) {
        // Progress that cannot be shown must not stop the work.
        if !text.isEmpty { try? Linux.write(target.descriptor, text.utf8) }
    }
}

extension Printer {
    /// Runs work with progress on standard error, and leaves the screen tidy however it ends.
    package func withProgress<R: Sendable>(
        _ work: @Sendable (Progress) async throws -> R
    ) async rethrows -> R {
        let style: Progress.Style =
            isQuiet ? .silent : errors.isTerminal && environment("TERM") != "dumb" ? .live : .plain
        let progress = Progress(errors, results: isJSON ? nil : terminal, style)
        let clock = Task {
            guard style == .live else { return }
            while !Task.isCancelled {
                try await Task.sleep(for: .milliseconds(100))
                progress.tick()
            }
        }
        defer {
            clock.cancel()
            progress.end()
        }
        return try await work(progress)
    }
}
