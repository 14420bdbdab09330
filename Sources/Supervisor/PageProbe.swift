// SPDX-License-Identifier: Apache-2.0

/// Asking for a page with what every Debian guest has: bash, and openssl, which `ca-certificates` brings.
extension SuperviseSpec.HealthCheck.Page {
    /// How people know the check.
    var name: String {
        let scheme = isSecure ? "https" : "http"
        guard let host else { return "\(scheme) port \(port) \(path)" }
        return "\(scheme)://\(host):\(port)\(path)"
    }

    /// Succeeds with 2xx and 3xx; else its last line is what was answered, or why nothing was.
    func command(seconds: String) -> [String] {
        let target = host ?? "localhost"
        let usual: UInt16 = isSecure ? 443 : 80
        var trust: [String] = []
        if isVerified {
            let isAddress = target.utf8.allSatisfy { $0 == 46 || (48...57).contains($0) }
            trust = ["-verify_return_error", isAddress ? "-verify_ip" : "-verify_hostname", target]
        }
        return ["/bin/bash", "-c", Self.script, "martlet"]
            + [
                isSecure ? "https" : "http", target, "\(port)", path,
                port == usual ? target : "\(target):\(port)", seconds,
            ] + trust
    }

    /// Scheme, host, port, path, the header `Host` and seconds, then options for openssl.
    ///
    /// openssl says much before it gives up, and the first thing is the reason. What it starts may
    /// outlive it, for a server that does not hang up, and so has a bound of its own.
    static let script = #"""
        scheme=$1 host=$2 port=$3 path=$4 name=$5 seconds=$6
        shift 6
        request() {
            printf 'GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: martlet\r\n' "$path" "$name"
            printf 'Accept: */*\r\nConnection: close\r\n\r\n'
        }
        ask() {
            if [ "$scheme" = https ]; then
                command -v openssl >/dev/null || { echo "openssl: not in the guest"; return; }
                request | timeout "$seconds" openssl s_client -quiet -connect "$host:$port" "$@"
            else
                exec 3<>"/dev/tcp/$host/$port" && request >&3 && timeout "$seconds" cat <&3
            fi
        }
        why=
        while IFS= read -r line; do
            case $line in
            HTTP/*)
                set -- $line
                echo "${2%%[!0-9]*}"
                case $2 in [23][0-9][0-9]*) exit 0 ;; *) exit 1 ;; esac
                ;;
            *'verify error:'*) : "${why:=certificate: ${line##*:}}" ;;
            *:error:*)
                IFS=: read -ra part <<<"$line"
                reason=${part[5]}
                [ "$reason" != 'system lib' ] || reason=${part[8]}
                : "${why:=$reason}"
                ;;
            *': '*) : "${why:=${line##*: }}" ;;
            esac
        done < <(LC_ALL=C ask "$@" 2>&1)
        echo "${why:-no answer}"
        exit 1
        """#
}
