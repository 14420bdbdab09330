// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Opens the virtio-serial port of that name; -1 with errno when there is none.
int open_port(const char *name, int flags);

/// Serves sshd on the port org.martlet.ssh for ever. Returns only on failure.
int port(void);

/// Connects to a port of this machine, by IPv4 or else IPv6, within some seconds, which are also the
/// time that a read may take; -1 with errno.
int dial(int port, int seconds);

/// `tcp PORT [SECONDS]` or `http PORT PATH [SECONDS]`: prints one line; 0 healthy, 1 not, 64 usage.
int probe(int count, char **arguments);
