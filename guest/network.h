// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Gives the card with this MAC an IPv4 address (`10.0.2.15/24`) and a default route (`-`: none), so
/// that sshd can be reached before systemd-networkd runs, which then takes the address over.
void network_address(const char *mac, const char *address, const char *gateway);
