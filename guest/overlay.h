// SPDX-License-Identifier: Apache-2.0
// The folder of the data volume that takes what is written to the system, in the modes `overlay`
// and `mutable`.
#pragma once

/// Where it is below the mount point of the data volume: a name with a dot, so that a volume which
/// holds nothing else still counts as empty.
#define OVERLAY_FOLDER "/.martlet/overlay"
#define OVERLAY_UPPER OVERLAY_FOLDER "/upper"
#define OVERLAY_WORK OVERLAY_FOLDER "/work"

/// Makes it ready for an image, and takes out of it what is the VM's identity.
///
/// `data` is where the data volume is mounted. What was written over another image is removed, or,
/// with `keep`, refused: it would hide the files of this one. After a power failure at any moment
/// doing it again completes it.
void overlay_prepare(const char *data, const char *image, int keep);
