// SPDX-License-Identifier: Apache-2.0
#include "network.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

static int card_with_mac(const char *mac, char name[IFNAMSIZ]) {
    DIR *folder = opendir("/sys/class/net");
    struct dirent *entry;
    int found = 0;
    while (folder && !found && (entry = readdir(folder))) {
        char path[300];
        struct text text = {0};
        snprintf(path, sizeof path, "/sys/class/net/%s/address", entry->d_name);
        if (read_file(path, &text) == 0) {
            text.bytes[strcspn(text.bytes, "\n")] = 0;
            found = !strcmp(text.bytes, mac);
            snprintf(name, IFNAMSIZ, "%.15s", entry->d_name);
        }
        free(text.bytes);
    }
    if (folder) closedir(folder);
    return found;
}

static void set(struct sockaddr *address, uint32_t host_order) {
    struct sockaddr_in value = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(host_order)};
    memcpy(address, &value, sizeof value);
}

static uint32_t parse(const char *text) {
    struct in_addr address;
    if (inet_pton(AF_INET, text, &address) != 1) reject("identity: bad address '%s'", text);
    return ntohl(address.s_addr);
}

void network_address(const char *mac, const char *address, const char *gateway) {
    struct ifreq request = {0};
    if (!card_with_mac(mac, request.ifr_name)) reject("no network card with the MAC %s", mac);
    char plain[64];
    snprintf(plain, sizeof plain, "%.*s", (int)strcspn(address, "/"), address);
    int prefix = strchr(address, '/') ? atoi(strchr(address, '/') + 1) : 32;
    if (prefix < 1 || prefix > 32) reject("identity: bad address '%s'", address);

    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    set(&request.ifr_addr, parse(plain));
    if (ioctl(fd, SIOCSIFADDR, &request) < 0) fail("cannot set the address %s", address);
    set(&request.ifr_netmask, ~0u << (32 - prefix));
    if (ioctl(fd, SIOCSIFNETMASK, &request) < 0) fail("cannot set the address %s", address);
    request.ifr_flags = IFF_UP;
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0) fail("cannot bring up %s", request.ifr_name);
    if (strcmp(gateway, "-")) {
        struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = request.ifr_name};
        set(&route.rt_dst, 0);
        set(&route.rt_genmask, 0);
        set(&route.rt_gateway, parse(gateway));
        if (ioctl(fd, SIOCADDRT, &route) < 0) fail("cannot set the gateway %s", gateway);
    }
    close(fd);
}
