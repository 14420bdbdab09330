// SPDX-License-Identifier: Apache-2.0
// What Martlet uses of libnftables. The library is loaded by the first call: most runs of martlet
// never look at the packet filter, and loading it took a third of the time of a short one.
#pragma once
#include <nftables/libnftables.h>

/// Why the library cannot be loaded, or NULL when it can. Ask before any other call.
const char *nft_missing(void);
