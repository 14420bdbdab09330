#!/usr/bin/env bash
# What the parts of `make bench` share. Sourced by them, with the repository as working folder.
set -euo pipefail
program=${MARTLET_PROGRAM:-$PWD/.build/release/martlet}
# Images stay from one run to the next; VMs do not.
cache=${BENCH_CACHE:-/var/tmp/martlet-bench-$UID}
mkdir -p "$cache"
work=$(mktemp -d "${TMPDIR:-/tmp}/martlet-bench.XXXXXX")
chmod 0711 "$work"
exec {lock}<"$cache"
flock -n "$lock" || {
	echo "error: another benchmark runs in $cache" >&2
	exit 75
}
# The same each time, so that a run finds and removes VMs which a killed one left.
export MARTLET_ROOT=$cache/root MARTLET_RUN=$cache/run
export MARTLET_FLEET=$work/fleet.yaml
unset MARTLET_QEMU

# One by one: a name that is not there makes a verb refuse them all.
remove_vms() {
	local vm
	for vm in "${vms[@]}"; do
		"$program" -q kill "$vm" >/dev/null 2>&1 || true
		"$program" -q purge --yes "$vm" >/dev/null 2>&1 || true
	done
}
# Ends what was started here, whatever ended us.
clean_up() {
	# A start that is still waiting holds the VM's lock.
	jobs -p | xargs -r kill 2>/dev/null || true
	wait
	remove_vms
	rm -rf "$work"
}
vms=()
trap clean_up EXIT
trap 'exit 130' INT TERM

# declare_fleet VM... <<YAML: the fleet of this run, made and not started.
declare_fleet() {
	vms+=("$@")
	cat >"$MARTLET_FLEET"
	remove_vms
	"$program" -q up --no-start >/dev/null
}

# field VM KEY: a number or a word of `list --json`.
field() {
	"$program" --json list "$1" | sed -n "s/^ *\"$2\" *: *\"\\{0,1\\}\\([^\",]*\\).*/\\1/p" | head -n 1
}

now() { echo "${EPOCHREALTIME/,/.}"; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.3f\n", b - a }'; }

# Of numbers, one a line: "minimum median maximum".
spread() {
	sort -g | awk '{ v[NR] = $1 } END {
		if (!NR) exit 1
		m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
		print v[1], m, v[NR]
	}'
}
median() { spread | cut -d ' ' -f 2; }

# One look at a port of 127.0.0.1: makes the file when an SSH banner comes.
look_for_banner() {
	local port=$1 found=$2 line
	{ exec {socket}<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 0
	read -r -t 5 -u "$socket" line || true
	[[ $line != SSH-* ]] || : >"$found"
}

# Waits for an SSH banner on a port of 127.0.0.1; fails after so many seconds.
#
# A connection that was made before the guest had an address hangs, so after a second another one is
# tried beside it. More would hinder what they look for: each is a process of the guest.
await_banner() {
	local port=$1 end=$((SECONDS + $2)) found=$work/banner.$1 look=0 looks=() tick=0
	rm -f "$found"
	while ((SECONDS < end)) && [[ ! -e $found ]]; do
		if ((tick % 10 == 0)) || ! kill -0 "$look" 2>/dev/null; then
			look_for_banner "$port" "$found" &
			look=$!
			looks+=("$look")
			tick=0
		fi
		tick=$((tick + 1))
		sleep 0.1
	done
	for look in "${looks[@]}"; do
		kill "$look" 2>/dev/null || true
		wait "$look" || true
	done
	[[ -e $found ]]
}

load() { cut -d ' ' -f 1-3 /proc/loadavg; }
say() { printf '%s\n' "$*"; }
fail() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}
