# SPDX-License-Identifier: Apache-2.0
PREFIX ?= /usr/local
DESTDIR ?=
release := .build/release/martlet
# The program may have 20 MB: a section for each function, so that equal ones are linked once, and
# relocations packed into bits, which glibc 2.36 (Debian 12) is the first to read.
release_flags := -c release --product martlet --static-swift-stdlib -Xswiftc -Osize \
	-Xswiftc -Xfrontend -Xswiftc -function-sections -Xswiftc -use-ld=lld \
	-Xlinker --gc-sections -Xlinker -s -Xlinker --no-export-dynamic -Xlinker --icf=all \
	-Xlinker -z -Xlinker pack-relative-relocs

# Where the Swift toolchain is when the shell does not know it.
export PATH := $(PATH):/opt/swift/usr/bin:$(HOME)/.local/share/swiftly/bin

.PHONY: demo test test-faults test-full test-services test-hosts build deb lint bench install docs clean

# From nothing to VMs that one can log in to.
demo:
	scripts/install-packages
	scripts/demo

test:
	scripts/install-packages test
	scripts/test

# Random steps with random faults: kills, full disks, power cuts. A failure says its seed.
test-faults:
	scripts/install-packages test
	MARTLET_FAULTS=500 scripts/test --filter FaultCampaign

# Services of the catalogue and OCI images in real guests: the heavy ones, and what each is given over
# upgrade, rollback, backup and restore.
test-services:
	scripts/install-packages test
	swift build --build-tests
	MARTLET_TESTS=full scripts/test --skip-build --filter 'ServiceGuestTests|OCIGuestTests'

# Also what takes long, one after the other: real guests killed at every step, four slots and a LAN
# of real guests, services, volumes, modes, hardening, snapshots and upgrades in them, images built twice,
# random faults, fuzzing, a boot soak, hosts with systemd.
test-full: test build
	MARTLET_TESTS=full scripts/test --skip-build --filter 'CampaignTests|ReproductionTests|FourGuestTests|RestartTests|anotherAddress'
	MARTLET_TESTS=full scripts/test --skip-build --filter 'VolumeGuestTests|ModeTests|IntegrityGuestTests|SecretDrillTests|SnapshotGuestTests|HardeningGuestTests|isSnapshotted|PublishPebbleTests|PublishTests'
	$(MAKE) test-services
	MARTLET_FAULTS=50 scripts/test --skip-build --filter FaultCampaign
	scripts/fuzz 600
	scripts/bench soak 100
	$(MAKE) test-hosts

build:
	scripts/install-packages
	swift build $(release_flags)

# A Debian package of the release, below .build/deb.
deb: build
	scripts/install-packages deb
	scripts/make-deb $(release)

# Hosts with systemd, Debian 12 and 13: the package, VMs as services, reboots, power cuts.
test-hosts: build
	scripts/install-packages hosts
	Tests/Hosts/run

lint:
	scripts/install-packages test
	scripts/lint

bench: build
	scripts/install-packages bench
	scripts/bench

# Only copies when the release is built: `make build && sudo make install` builds nothing as root.
install:
	[ -x $(release) ] || $(MAKE) build
	scripts/install-files $(release) "$(DESTDIR)" "$(PREFIX)"

docs:
	swift build
	.build/debug/martlet __manual markdown > docs/commands.md
	.build/debug/martlet __manual services > docs/services.md

clean:
	rm -rf .build
