// SPDX-License-Identifier: Apache-2.0

/// One encrypted value: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`, the first three in base64.
struct SopsValue {
    enum Kind: String { case str, int, float, bool, bytes, time, comment }

    let data: [UInt8]
    let iv: [UInt8]
    let tag: [UInt8]
    let type: Kind

    /// Nil for anything else, however little is missing.
    init?(_ text: String) {
        let start = "ENC[AES256_GCM,"
        guard text.hasPrefix(start), text.hasSuffix("]") else { return nil }
        let fields = text.dropFirst(start.count).dropLast().split(
            separator: ",", omittingEmptySubsequences: false)
        guard fields.count == 4, fields[0].hasPrefix("data:"), fields[1].hasPrefix("iv:"),
            fields[2].hasPrefix("tag:"), fields[3].hasPrefix("type:"),
            let data = Base64.decode(fields[0].dropFirst(5)),
            let iv = Base64.decode(fields[1].dropFirst(3)), iv.count == 32,
            let tag = Base64.decode(fields[2].dropFirst(4)), tag.count == 16,
            let type = Kind(rawValue: String(fields[3].dropFirst(5)))
        else { return nil }
        (self.data, self.iv, self.tag, self.type) = (data, iv, tag, type)
    }
}

/// A value that is not encrypted, in the form that sops hashes it in.
///
/// It hashes what its reader of YAML or JSON made of it: `0x10` is `16`, `1.50` is `1.5`.
enum SopsScalar: Equatable {
    /// In JSON every number is one with a fraction.
    enum Form { case yaml, json }

    case null
    case text(String)
    /// A time in a form that we do not bring into that of sops.
    case time

    init(_ text: String, isPlain: Bool, _ form: Form) {
        guard isPlain else {
            self = .text(text)
            return
        }
        switch text {
        case "", "~", "null", "Null", "NULL": self = .null
        case "true", "True", "TRUE": self = .text("True")
        case "false", "False", "FALSE": self = .text("False")
        default: self = form == .json ? Self.json(text) : Self.yaml(text)
        }
    }

    /// What goes into the MAC; nil for what we cannot tell.
    var hashed: String? { if case .text(let text) = self { text } else { nil } }

    private static func json(_ text: String) -> SopsScalar {
        .text(Double(text).map(plain) ?? text)
    }

    private static func yaml(_ text: String) -> SopsScalar {
        if let time = time(text) { return time }
        switch text {
        case ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF": return .text("+Inf")
        case "-.inf", "-.Inf", "-.INF": return .text("-Inf")
        case ".nan", ".NaN", ".NAN": return .text("NaN")
        default: break
        }
        guard let first = text.utf8.first, "+-.0123456789".utf8.contains(first) else {
            return .text(text)
        }
        let digits = text.filter { $0 != "_" }
        if let number = integer(digits) { return .text(String(number)) }
        if isFloat(digits), let number = Double(digits) { return .text(plain(number)) }
        return .text(text)
    }

    /// An integer as YAML 1.1 and 1.2 write it: a leading zero means octal, as in the one.
    private static func integer(_ text: String) -> Int64? {
        let isNegative = text.hasPrefix("-")
        var digits = Substring(text)
        if isNegative || text.hasPrefix("+") { digits = digits.dropFirst() }
        var radix = 10
        for (prefix, value) in [("0x", 16), ("0o", 8), ("0b", 2)]
        where digits.lowercased().hasPrefix(prefix) {
            radix = value
            digits = digits.dropFirst(2)
        }
        if radix == 10, digits.count > 1, digits.hasPrefix("0") { radix = 8 }
        guard let first = digits.first, first.isHexDigit else { return nil }
        return Int64((isNegative ? "-" : "") + digits, radix: radix)
    }

    /// By the very expression of sops's reader of YAML.
    private static func isFloat(_ text: String) -> Bool {
        text.wholeMatch(of: #/[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?/#) != nil
    }

    private static func time(_ text: String) -> SopsScalar? {
        if text.wholeMatch(of: #/[0-9]{4}-[0-9]{2}-[0-9]{2}/#) != nil {
            return .text(text + "T00:00:00Z")
        }
        let utc = #/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z/#
        if text.wholeMatch(of: utc) != nil { return .text(text) }
        let any = #/[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?/#
        return text.wholeMatch(of: any) == nil ? nil : .time
    }

    /// The shortest digits that read back as the same number, never with an exponent.
    static func plain(_ number: Double) -> String {
        guard number.isFinite else { return number.isNaN ? "NaN" : number < 0 ? "-Inf" : "+Inf" }
        let sign = number.sign == .minus ? "-" : ""
        let parts = number.magnitude.description.split(separator: "e")
        let mantissa = parts[0].split(separator: ".")
        let fraction = mantissa.count > 1 && mantissa[1] != "0" ? String(mantissa[1]) : ""
        let exponent = parts.count > 1 ? Int(parts[1]) ?? 0 : 0
        let digits = String(mantissa[0]) + fraction
        let point = mantissa[0].count + exponent
        if point <= 0 { return sign + "0." + String(repeating: "0", count: -point) + digits }
        if point >= digits.count {
            return sign + digits + String(repeating: "0", count: point - digits.count)
        }
        return sign + digits.prefix(point) + "." + digits.dropFirst(point)
    }
}
