#!/usr/bin/env bash
# Runs the whole suite on each Node and against each server that we promise, one after the other:
#
#   npm run test:matrix                      all of them
#   npm run test:matrix -- 24:valkey-8       Node 24, Valkey 8
#   npm run test:matrix -- 22:redis 22:redis-8
#
# `redis` is the server of this machine, or that in REDIS_SERVER. The others are Debian's next release,
# which is unpacked beside the system and changes nothing of it: REDIS_8_SERVER and VALKEY_8_SERVER name
# them where this is not Debian. The few tests that set the clock of a server take `redis` for it always,
# since libfaketime and the allocator of the others do not bear each other. Ends with a line for each run, and fails if one of them has.
set -euo pipefail
cd "$(dirname "$0")/.."

RELEASE=trixie
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
CACHE=$(realpath node_modules)/.cache/servers

if [ $# -eq 0 ]; then set -- 20:redis 22:redis 24:redis 24:redis-8 24:valkey-8; fi

# Unpacks the servers of the next release and all that they need, and makes a command of each.
unpack() {
  local apt=$CACHE/apt root=$CACHE/root mirror loader name
  [ -e "$CACHE/complete" ] && return
  command -v apt-get dpkg-deb > /dev/null || { echo 'Not a Debian: set REDIS_8_SERVER and VALKEY_8_SERVER.' >&2; return 1; }
  rm -rf "$CACHE"
  mkdir -p "$apt"/{lists,archives}/partial "$root"
  # As if nothing was installed, so that all that is needed is fetched.
  : > "$apt/status"
  mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(CODENAME)' 'Identifier: Packages' |
    awk '$1 == "Debian" && $3 !~ /-/ { print $2; exit }')
  echo "deb [signed-by=$KEYRING] $mirror $RELEASE main" > "$apt/sources.list"
  local options=(
    -qq -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State=$apt" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt" -o APT::Sandbox::User=
  )
  apt-get "${options[@]}" update
  apt-get "${options[@]}" install --yes --download-only --no-install-recommends redis-server valkey-server
  for name in "$apt"/archives/*.deb; do dpkg-deb --extract "$name" "$root"; done
  # They need the C library of their release, and so its loader.
  loader=$(find "$root" -name 'ld-linux*.so.*' -type f)
  for name in redis valkey; do
    printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' "$loader" "$(dirname "$loader")" "$root/usr/bin/$name-server" > "$CACHE/$name-server"
    chmod +x "$CACHE/$name-server"
    "$CACHE/$name-server" --version
  done
  rm -rf "$apt"
  touch "$CACHE/complete"
}

server_of() {
  case $1 in
    redis) echo "${REDIS_SERVER-}" ;;
    redis-8) echo "${REDIS_8_SERVER-$CACHE/redis-server}" ;;
    valkey-8) echo "${VALKEY_8_SERVER-$CACHE/valkey-server}" ;;
    *) echo "There is no server $1: redis, redis-8 or valkey-8." >&2; return 1 ;;
  esac
}

for run in "$@"; do
  server=$(server_of "${run#*:}")
  case $server in "$CACHE"/*) unpack ;; esac
done

logs=$(mktemp -d)
results=()
failed=0
for run in "$@"; do
  node=${run%%:*}
  log=$logs/${run/:/-}.tap
  status=0
  CLOCK_REDIS_SERVER=${REDIS_SERVER:-redis-server} REDIS_SERVER=$(server_of "${run#*:}") npx --yes --package "node@$node" npm test -- --no-color --reporter=tap --disable-coverage > "$log" 2>&1 || status=$?
  result="Node $node, ${run#*:}: $(node .ci/closing-line.js "$log" "$status")"
  if [ "$status" -ne 0 ]; then
    failed=1
    result="$result ($log)"
    grep -E '^ *not ok' "$log" || tail -n 20 "$log"
  fi
  echo "$result"
  results+=("$result")
done

echo
printf '%s\n' "${results[@]}"
if [ "$failed" -eq 0 ]; then rm -r "$logs"; fi
exit "$failed"
