#!/usr/bin/env bash
# setup.sh [dns|intake [PEER...]]: makes what the comparisons need, in the cache folder; what is done already is kept.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

CADDY=github.com/caddyserver/caddy/v2/cmd/caddy@v2.11.9

# need COMMAND PACKAGE...: installs Debian packages unless the command is there.
need() {
	command -v "$1" >/dev/null || {
		[ -n "${updated:-}" ] || apt-get update -qq
		updated=1
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${@:2}" >/dev/null
	}
}

tools() {
	need jq jq
	need gcc gcc libc6-dev
	mkdir -p "$BIN" "$CACHE/geo"
	(cd "$BENCH" && go build -buildvcs=false -o "$BIN/" ./...)
}

dns() {
	need gdnsd gdnsd
	need knotd knot
	compgen -G '/usr/lib/*/knot/*/geoip.so' >/dev/null || need knot-module-geoip knot-module-geoip # a package of its own, without a command
	need kdig knot-dnsutils
	[[ " $* " != *" pdns "* ]] || need pdns_server pdns-server pdns-backend-geoip
	local program
	for program in dnsecho idlehog; do
		[ "$BIN/$program" -nt "$BENCH/$program/$program.c" ] ||
			gcc -O2 -Wall -o "$BIN/$program" "$BENCH/$program/$program.c"
	done
	if [[ " $* " == *" isochrone"* ]]; then
		need etcd etcd-server
		need etcdctl etcd-client
		[ -n "${ISOCHRONE_BIN:-}" ] || (cd "$ROOT" && go build -buildvcs=false -o "$BIN/isochrone" ./cmd/isochrone)
	fi
	local input
	for input in "$BENCH"/geodb/*.go "$ROOT"/router/geo/{country.mmdb.gz,centroids.csv} "$BENCH/peers/pops.csv"; do
		[ "$CACHE/geo/geo-large.mmdb" -nt "$input" ] || { geodb; break; }
	done
}

geodb() {
	"$BIN/geodb" -source "$ROOT/router/geo/country.mmdb.gz" -centroids "$ROOT/router/geo/centroids.csv" \
		-pops "$BENCH/peers/pops.csv" -out "$CACHE/geo"
}

intake() {
	need openssl openssl
	need curl curl
	[[ " $* " != *" nginx "* ]] || need nginx nginx-light
	[ -e "$BIN/caddy" ] || GOBIN=$BIN go install "$CADDY"
	[ -e "$CACHE/cert.pem" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
		-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
		-keyout "$CACHE/key.pem" -out "$CACHE/cert.pem" 2>/dev/null
}

tools
case ${1:-all} in
dns) dns "${@:2}" ;;
intake) intake "${@:2}" ;;
all)
	dns pdns
	intake nginx
	;;
*) die "want dns, intake or nothing, not $1" ;;
esac
