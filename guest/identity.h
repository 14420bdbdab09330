// SPDX-License-Identifier: Apache-2.0
// What makes this VM this VM: the text that the host hands over through fw_cfg.
#pragma once

/// The fw_cfg entry that holds it.
#define IDENTITY_ENTRY "opt/org.martlet/identity"

/// Reads the identity; the image is known from then on.
void identity_load(void);

/// Carries the identity out: writes its files below /run/martlet, and makes in the folder `own` what it
/// changes outside of /run: accounts, timezone, mount points. `own` becomes the topmost layer.
/// `layer_path` is a printf format that gives the folder of a layer, 0 the lowest. `upper` is the
/// folder that takes what is written to the system, or NULL: accounts in it are kept.
void identity_apply(const char *own, const char *layer_path, int layers, const char *upper);

/// The image's id as the identity names it; decides whether /var has to be filled.
const char *identity_image(void);

/// Makes the homes of the accounts that the identity added, from /etc/skel. Needs /var.
void identity_make_homes(const char *root);
