// SPDX-License-Identifier: Apache-2.0
import Fleets

extension Caddy {
    /// What visitors see of a VM that is stopped, starting or unhealthy: 503, and nothing of what is
    /// behind the name.
    ///
    /// The name comes from the request, and can be put into the page as it is: the proxy is only
    /// reached under one of the names that are declared.
    static var unavailable: JSONValue {
        let failed = "{http.error.status_code} in [502, 503, 504]"
        return [
            "match": [["expression": .string(failed)]],
            "handle": [
                [
                    "handler": "subroute",
                    "routes": [
                        [
                            "match": [["header": ["Accept": ["*text/html*"]]]],
                            "handle": [answer("text/html", page)], "terminal": true,
                        ],
                        ["handle": [answer("text/plain", "\(sentence)\n")]],
                    ],
                ]
            ],
            "terminal": true,
        ]
    }

    private static let sentence =
        "503: {http.request.host} is not available at the moment. Please try again soon."

    private static func answer(_ type: String, _ body: String) -> JSONValue {
        [
            "handler": "static_response", "status_code": 503,
            "headers": [
                "Content-Type": [.string("\(type); charset=utf-8")], "Cache-Control": ["no-store"],
                "Retry-After": ["10"],
            ],
            "body": .string(body),
        ]
    }

    private static let page = """
        <!DOCTYPE html>
        <html lang="en">
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width">
        <title>{http.request.host}: not available</title>
        <style>body{font:1.1em/1.5 sans-serif;max-width:32em;margin:20vh auto;padding:0 1em}</style>
        <h1>{http.request.host} is not available</h1>
        <p>The service behind this name does not answer at the moment. Please try again soon.</p>
        <p><small>503 Service Unavailable</small></p>
        </html>

        """
}
