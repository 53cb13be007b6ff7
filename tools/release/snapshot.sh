#!/bin/sh
# snapshot.sh: dist/ as a release would have it, of the last commit, without a
# network and without a tag. It builds in a clone of its own: what is in the working
# tree besides is no part of a release, and Go writes no version into a program
# that it builds in a linked worktree.
set -eu
cd "$(dirname "$0")/../.."
root=$PWD
test -z "$(git status --porcelain)" || echo 'what is not committed is not in the snapshot' >&2
src=$(mktemp -d "$root/.cache/snapshot.XXXXXX")
trap 'rm -rf "$src"' EXIT
git clone --quiet . "$src"
cd "$src"
export PATH="$root/.cache:$PATH"

# What Go calls this commit, and so what the programs say.
CGO_ENABLED=0 go build -buildvcs=true -o .cache/ ./cmd/promdump-agent
SNAPSHOT=$(go version -m .cache/promdump-agent | awk '$1 == "mod" { sub("^v", "", $3); print $3 }')
export SNAPSHOT
goreleaser release --snapshot --parallelism "${PARALLELISM:-2}"
(cd "$root/tools/release" && go run ./finish -source "$src" -dist "$src/dist")
rm -rf "$root/dist"
mv dist "$root/dist"
