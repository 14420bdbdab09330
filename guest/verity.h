// SPDX-License-Identifier: Apache-2.0
// Layers that the kernel checks as they are read (dm-verity): a hash tree behind each layer's
// content, whose root hash stands in the initramfs.
#pragma once

/// Reads how the layers are checked from /verity, a file of the initramfs. An image that has none
/// is older than the check, and its layers are used as they are.
void verity_load(int layers);

/// Puts the check between a layer and its disk, and the checked device in the disk's place.
void verity_open(int layer, char device[64]);
