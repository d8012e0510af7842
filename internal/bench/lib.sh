# shellcheck shell=bash disable=SC2034
# Shared by the scripts of the kit; sourced, not run.
BENCH=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$BENCH/../.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/isochrone-bench
BIN=$CACHE/bin
SERVER_CORE=0
LOAD_CORE=1
GEO=${BENCH_GEO:-$CACHE/geo/geo.mmdb}
export BENCH_GEO=$GEO # for the peers, which read this file too
PATH=$PATH:/usr/sbin # gdnsd, knotd and nginx are there, which not every user's PATH has
export QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING=true

die() { echo "${0##*/}: $*" >&2; exit 1; }

# render FROM PORT: copies a peer's folder to the cache with {port}, {dir}, {cache}, {geo} and the given NAME=VALUE filled in,
# and prints where.
render() {
	local from=$1 port=$2 dir pair value edits=()
	dir=$CACHE/run/${from##*/}-$port
	shift 2
	rm -rf "$dir"
	mkdir -p "$CACHE/run"
	cp -r "$from" "$dir"
	for pair in port="$port" dir="$dir" cache="$CACHE" geo="$GEO" "$@"; do
		value=${pair#*=} value=${value//\\/\\\\} value=${value//&/\\&} value=${value//|/\\|}
		edits+=(-e "s|{${pair%%=*}}|$value|g")
	done
	find "$dir" -type f -exec sed -i "${edits[@]}" {} +
	echo "$dir"
}

# begin: one comparison at a time on this machine, first in line for the cores, with an empty folder $work, and nothing
# left running at the end.
begin() {
	[ "$(nproc)" -ge 2 ] || die "two cores are needed: one for the servers, one for the load"
	exec 9>"$CACHE/lock"
	flock -n 9 || { echo "waiting for another comparison to end" >&2; flock 9; }
	work=$CACHE/run/compare
	rm -rf "$work"
	mkdir -p "$work"
	nice_before=$(sed 's/.* nice //' /proc/self/autogroup 2>/dev/null || true)
	first_in_line
	server='' backend=''
	servers=() # of a mixed comparison
	trap finish EXIT
	trap 'exit 130' INT TERM
}

# finish ends what begin and the comparison have started.
finish() {
	local session
	for session in "$server" "$backend" "${servers[@]}"; do stop "$session"; done
	{ echo "${nice_before:-0}" >/proc/self/autogroup; } 2>/dev/null || true
}

# first_in_line raises the session's scheduling group, where the kernel and the user's rights allow it.
first_in_line() { { echo -20 >/proc/self/autogroup; } 2>/dev/null || true; }

# start CORE LOG COMMAND [HOG]: runs a shell command in a session of its own, and leaves its id in $started. The command's
# first process dies with this script, however that ends. HOG is the file of an idlehog in the same session.
start() {
	local core=$1 log=$2 command=$3
	[ -z "${4:-}" ] || command="('$BIN/idlehog' '$4' &); $command"
	setsid setpriv --pdeathsig KILL taskset -c "$core" \
		bash -c "$(declare -f first_in_line); first_in_line; $command" >"$log" 2>&1 9>&- &
	started=$!
}

# warm_up NAME LOG LOADER...: runs the loader for a moment, as soon as the server answers; gives up after a minute, or
# when the server has ended.
warm_up() {
	local tries
	for tries in $(seq 30); do
		if "${@:3}" -wait 2s -duration 500ms >/dev/null 2>"$work/warm-up.log"; then return; fi
		kill -0 -- "-$server" 2>/dev/null || break
	done
	tail -n 5 "$2" "$work/warm-up.log" >&2
	die "$1 does not serve, try $tries; its log is $2"
}

# stop SESSION: ends what start began, the hard way after 5 s.
stop() {
	[ -n "$1" ] || return 0
	kill -TERM -- "-$1" 2>/dev/null || true
	local tries
	for tries in $(seq 100); do
		kill -0 -- "-$1" 2>/dev/null || break
		[ "$tries" -lt 100 ] || kill -KILL -- "-$1" 2>/dev/null || true
		sleep 0.05
	done
	wait "$1" || true
}

# usage_of SESSION [CORE]: CPU time in ms (utime, stime and those of ended children) and resident memory in MiB, over all
# processes of the session on the servers' core (or another): what a server has beside itself, such as its database, runs on
# the load's core and does not count. Field numbers count from after the command's name, see proc(5).
usage_of() {
	cat /proc/[0-9]*/stat 2>/dev/null | sed 's/^.*) //' |
		awk -v session="$1" -v core="${2:-$SERVER_CORE}" -v hz="$(getconf CLK_TCK)" -v page="$(getconf PAGESIZE)" '
			$4 == session && $37 == core { ticks += $12 + $13 + $14 + $15; pages += $22 }
			END { printf "%d %.1f\n", ticks * 1000 / hz, pages * page / 1048576 }'
}

# busy: CPU time in ms that the whole machine has used so far, with what the hypervisor took away (steal).
busy() { awk -v hz="$(getconf CLK_TCK)" '$1 == "cpu" { print int(($2 + $3 + $4 + $7 + $8 + $9) * 1000 / hz) }' /proc/stat; }

# fill COMMAND NAME=VALUE...: replaces the placeholders in a server's command line.
fill() {
	local command=$1 pair
	shift
	for pair in "$@"; do command=${command//"{${pair%%=*}}"/"${pair#*=}"}; done
	echo "$command"
}
