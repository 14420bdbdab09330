// SPDX-License-Identifier: Apache-2.0
import Fleets
import Planning

/// What the images of the fleet file need of this host beyond what all images need.
struct ImageNeeds {
    private let pullsOCI: Bool

    init(_ fleet: Fleet?) {
        pullsOCI =
            fleet.map { fleet in
                fleet.vms.filter(\.enable)
                    .contains { recipes(of: $0.image, in: fleet).contains { $0.oci != nil } }
            } ?? false
    }

    /// Nothing where no VM has an OCI image; `find` looks for a program.
    func findings(_ find: (String) -> String?) -> [Doctor.Finding] {
        guard pullsOCI else { return [] }
        return [Doctor.tool(("skopeo", "skopeo", "fetches OCI images"), at: find("skopeo"))]
    }
}
