// SPDX-License-Identifier: Apache-2.0
// The identity is lines of a word, its arguments, and for some a text to the end of the line with
// `\n` for a line break and `\\` for a backslash:
//
//     martlet-identity 1              always the first line
//     image ID                        fills /var once per id
//     timezone Europe/Berlin
//     folder /srv/cache               a mount point to be there on the read-only root
//     file NAME MODE TEXT             a file below /run/martlet
//     unit NAME TARGET TEXT           a unit for systemd, wanted by the target
//     address MAC IPV4/PREFIX GATEWAY|-
//     user NAME UID GROUP,GROUP|-     an account; one that the image has only joins the groups
//     password NAME HASH
//     end                             always the last line: a cut text is an error
//
// Where the system can be written to, what the fleet file says is applied at each start over what
// the guest has made of it: host name, machine id, time zone, the accounts that it names and their
// passwords. All else in /etc is the guest's own, accounts that it has added among them.
//
// An unknown word is an error: silently leaving out a firewall would be worse than not starting.
#include "identity.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"
#include "network.h"

enum { max_users = 256, first_dynamic_uid = 1000 };

static struct {
    struct text passwd, shadow, group, gshadow;
    const char *image;
    struct {
        const char *name;
        uid_t uid;
    } added[max_users];
    size_t added_count;
} identity;

const char *identity_image(void) { return identity.image; }

// ---- account databases: lines of fields separated by colons, keyed by the first ----

// Where the line of `name` begins in `database`, or NULL.
static char *find_line(struct text *database, const char *name) {
    size_t length = strlen(name);
    for (char *line = database->bytes; line && *line;) {
        if (!strncmp(line, name, length) && line[length] == ':') return line;
        line = strchr(line, '\n');
        if (line) line++;
    }
    return NULL;
}

// Replaces `removed` bytes at `place` by `with`.
static void splice(struct text *database, char *place, size_t removed, const char *with) {
    struct text result = {0};
    append(&result, database->bytes, (size_t)(place - database->bytes));
    append_string(&result, with);
    append_string(&result, place + removed);
    free(database->bytes);
    *database = result;
}

static void add_line(struct text *database, const char *format, const char *name, uid_t uid) {
    char line[512];
    int length = snprintf(line, sizeof line, format, name, uid, uid, name);
    if (length < 0 || (size_t)length >= sizeof line) reject("identity: the name %s is too long", name);
    append(database, line, (size_t)length);
}

static void set_password(const char *name, const char *hash) {
    char *line = find_line(&identity.shadow, name);
    if (!line) reject("identity: a password for %s, who has no account", name);
    char *field = strchr(line, ':') + 1;
    splice(&identity.shadow, field, strcspn(field, ":\n"), hash);
}

static void join_group(struct text *database, const char *group, const char *member) {
    char *line = find_line(database, group);
    if (!line) {
        reject("identity: the account %s asks for the group %s, which the image does not have",
             member, group);
    }
    char *end = line + strcspn(line, "\n"), *members = end;
    while (members[-1] != ':') members--;
    size_t length = strlen(member);
    for (char *one = members; one < end; one += strcspn(one, ",\n") + 1)
        if (!strncmp(one, member, length) && (one[length] == ',' || one + length == end)) return;
    char text[300];
    snprintf(text, sizeof text, "%s%s", end == members ? "" : ",", member);
    splice(database, end, 0, text);
}

static void add_user(const char *name, uid_t uid, char *groups) {
    if (!find_line(&identity.passwd, name)) {
        char taken[32];
        snprintf(taken, sizeof taken, ":%u:", uid);
        if (identity.added_count == max_users || strstr(identity.passwd.bytes, taken)) {
            reject("identity: the uid %u of %s is taken, or there are too many users", uid, name);
        }
        add_line(&identity.passwd, "%s:x:%u:%u::/home/%s:/bin/bash\n", name, uid);
        add_line(&identity.shadow, "%s:*:::::::\n", name, 0);
        if (!find_line(&identity.group, name)) {
            add_line(&identity.group, "%s:x:%u:\n", name, uid);
            add_line(&identity.gshadow, "%s:!::\n", name, 0);
        }
        identity.added[identity.added_count].name = name;
        identity.added[identity.added_count++].uid = uid;
    }
    for (char *group = strtok(groups, ","); group; group = strtok(NULL, ","))
        if (strcmp(group, "-")) {
            join_group(&identity.group, group, name);
            join_group(&identity.gshadow, group, name);
        }
}

// ---- the text ----

static void unescape(char *text) {
    char *out = text;
    for (; *text; text++) {
        if (*text == '\\' && text[1]) *out++ = *++text == 'n' ? '\n' : *text;
        else *out++ = *text;
    }
    *out = 0;
}

// The next word of the line; the last argument takes the rest.
static char *next(char **rest, int last) {
    char *word = *rest;
    if (!word || !*word) {
        reject("identity: a line ends too early");
    }
    char *space = last ? NULL : strchr(word, ' ');
    if (space) *space = 0;
    *rest = space ? space + 1 : NULL;
    return word;
}

static void check_relative(const char *path) {
    if (!*path || *path == '/' || strstr(path, "..")) reject("identity: bad path '%s'", path);
}

static void take_file(char *rest) {
    char path[512], *name = next(&rest, 0), *mode = next(&rest, 0);
    // An empty text is an empty file.
    char *text = rest ? rest : "";
    check_relative(name);
    snprintf(path, sizeof path, "/run/martlet/%s", name);
    unescape(text);
    write_file(path, text, strlen(text), (mode_t)strtoul(mode, NULL, 8), 0);
}

static void check_name(const char *name) {
    check_relative(name);
    if (strchr(name, '/')) reject("identity: bad name '%s'", name);
}

// Below /run systemd looks before it looks at what the image has under /usr.
static void take_unit(char *rest) {
    static const char folder[] = "/run/systemd/system";
    char path[800], target[600], *name = next(&rest, 0), *wanted_by = next(&rest, 0);
    char *text = next(&rest, 1);
    check_name(name);
    check_name(wanted_by);
    unescape(text);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    write_file(path, text, strlen(text), 0644, 0);
    snprintf(path, sizeof path, "%s/%s.wants", folder, wanted_by);
    make_folders(path, 0755);
    snprintf(path, sizeof path, "%s/%s.wants/%s", folder, wanted_by, name);
    snprintf(target, sizeof target, "../%s", name);
    if (symlink(target, path) < 0) fail("cannot make %s", path);
}

static void take_line(char *line, const char *own) {
    char path[512], *rest = line, *word = next(&rest, 0);
    if (!strcmp(word, "image")) {
        next(&rest, 1);  // known since identity_load
    } else if (!strcmp(word, "file")) {
        take_file(rest);
    } else if (!strcmp(word, "unit")) {
        take_unit(rest);
    } else if (!strcmp(word, "user")) {
        char *name = next(&rest, 0), *uid = next(&rest, 0);
        add_user(name, (uid_t)strtoul(uid, NULL, 10), next(&rest, 1));
    } else if (!strcmp(word, "password")) {
        char *name = next(&rest, 0);
        set_password(name, next(&rest, 1));
    } else if (!strcmp(word, "address")) {
        char *mac = next(&rest, 0), *address = next(&rest, 0);
        network_address(mac, address, next(&rest, 1));
    } else if (!strcmp(word, "timezone")) {
        char *zone = next(&rest, 1), target[512];
        check_relative(zone);
        snprintf(path, sizeof path, "%s/etc/localtime", own);
        snprintf(target, sizeof target, "/usr/share/zoneinfo/%s", zone);
        if (symlink(target, path) < 0) fail("cannot set the timezone %s", zone);
    } else if (!strcmp(word, "folder")) {
        char *folder = next(&rest, 1);
        check_relative(folder + (*folder == '/'));
        snprintf(path, sizeof path, "%s%s", own, folder);
        make_folders(path, 0755);
    } else {
        reject("identity: unknown line '%s': the image is older than this martlet; build it again",
             word);
    }
}

// ---- reading and writing ----

// A file of the system: what was written over the image, else from the topmost layer that has it.
static void read_layered(const char *upper, const char *layer_path, int layers, const char *name,
                         struct text *text) {
    if (upper) {
        char path[512];
        snprintf(path, sizeof path, "%s/etc/%s", upper, name);
        if (read_file(path, text) == 0) return;
    }
    for (int layer = layers - 1; layer >= 0; layer--) {
        char path[512];
        int length = snprintf(path, sizeof path, layer_path, layer);
        snprintf(path + length, sizeof path - (size_t)length, "/etc/%s", name);
        if (read_file(path, text) == 0) return;
        if (errno != ENOENT) fail("cannot read the image's /etc/%s", name);
    }
    fail("the image has no /etc/%s", name);
}

static void write_database(const char *own, const char *upper, const char *name, struct text *text,
                           mode_t mode, gid_t group) {
    char path[512], fresh[512];
    struct text old = {0};
    snprintf(path, sizeof path, "%s/etc/%s", own, name);
    write_file(path, text->bytes, text->length, mode, group);
    if (!upper) return;
    // One that the guest has changed hides ours: the fleet's accounts have to be in there, too.
    snprintf(path, sizeof path, "%s/etc/%s", upper, name);
    snprintf(fresh, sizeof fresh, "%s/etc/.martlet-new", upper);
    if (read_file(path, &old) == 0 && strcmp(old.bytes, text->bytes)) {
        unlink(fresh);
        write_file(fresh, text->bytes, text->length, mode, group);
        if (rename(fresh, path) < 0) fail("cannot write %s", path);
    }
    free(old.bytes);
}

// The number of the image's group `shadow`, which may read the password hashes.
static gid_t shadow_group(void) {
    char *line = find_line(&identity.group, "shadow");
    char *field = line ? strchr(strchr(line, ':') + 1, ':') : NULL;
    return field ? (gid_t)strtoul(field + 1, NULL, 10) : 0;
}

static struct text source;

void identity_load(void) {
    if (read_file("/sys/firmware/qemu_fw_cfg/by_name/" IDENTITY_ENTRY "/raw", &source) < 0)
        fail("cannot read the identity from fw_cfg entry " IDENTITY_ENTRY);
    // The image is needed before all else: what is mounted depends on it.
    static const char word[] = "\nimage ";
    char *line = strstr(source.bytes, word);
    if (!line) return;
    line += strlen(word);
    identity.image = strndup(line, strcspn(line, "\n"));
}

void identity_apply(const char *own, const char *layer_path, int layers, const char *upper) {
    char *line = strtok(source.bytes, "\n");
    if (!line || strcmp(line, "martlet-identity 1"))
        reject("identity: unknown version '%s'; this image reads 'martlet-identity 1'",
             line ? line : "");

    read_layered(upper, layer_path, layers, "passwd", &identity.passwd);
    read_layered(upper, layer_path, layers, "shadow", &identity.shadow);
    read_layered(upper, layer_path, layers, "group", &identity.group);
    read_layered(upper, layer_path, layers, "gshadow", &identity.gshadow);

    char folder[512];
    snprintf(folder, sizeof folder, "%s/etc", own);
    make_folders(folder, 0755);
    make_folders("/run/martlet", 0755);
    // Lines are found by hand: strtok keeps one state, which the parsing of groups uses too.
    for (line += strlen(line) + 1;;) {
        char *end = line < source.bytes + source.length ? strchr(line, '\n') : NULL;
        if (!end) reject("identity: cut off before its last line");
        *end = 0;
        if (!strcmp(line, "end")) break;
        take_line(line, own);
        line = end + 1;
    }
    write_database(own, upper, "passwd", &identity.passwd, 0644, 0);
    write_database(own, upper, "group", &identity.group, 0644, 0);
    write_database(own, upper, "shadow", &identity.shadow, 0640, shadow_group());
    write_database(own, upper, "gshadow", &identity.gshadow, 0640, shadow_group());
}

void identity_make_homes(const char *root) {
    for (size_t i = 0; i < identity.added_count; i++) {
        char home[512], skeleton[512];
        struct stat info;
        snprintf(home, sizeof home, "%s/var/home/%s", root, identity.added[i].name);
        snprintf(skeleton, sizeof skeleton, "%s/etc/skel", root);
        if (lstat(home, &info) == 0) continue;
        struct owner owner = {identity.added[i].uid, identity.added[i].uid};
        char fresh[560];
        snprintf(fresh, sizeof fresh, "%s/var/home/.martlet-new.%s", root, identity.added[i].name);
        make_folders(fresh, 0700);
        copy_missing(skeleton, fresh, &owner);
        if (chown(fresh, owner.uid, owner.gid) < 0 || rename(fresh, home) < 0)
            fail("cannot make the home of %s", identity.added[i].name);
    }
}
