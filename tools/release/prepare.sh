#!/bin/sh
# prepare.sh VERSION: what is in a release beside the programs, into bin/release:
# the agents, embedded and as their archive; completions; man pages.
set -eu
cd "$(dirname "$0")/../.."
out=bin/release
umask 022
rm -rf $out
mkdir -p $out/completions $out/man-gz

# The client knows the digests of all, and has the common ones in it.
make --no-print-directory agents AGENTS='386 amd64 arm arm64 ppc64le riscv64 s390x' \
  PACK="-embed amd64,arm64 -tar $out/promdump-$1.tar.gz"

promdump=$(mktemp -d)
trap 'rm -rf "$promdump"' EXIT
CGO_ENABLED=0 GOOS= GOARCH= go build -trimpath -ldflags '-s -w' -o "$promdump/" ./cmd/promdump
for shell in bash zsh fish powershell; do
  "$promdump/promdump" completion $shell >$out/completions/promdump.$shell
done
mv $out/completions/promdump.powershell $out/completions/promdump.ps1

# Their date is the commit's.
SOURCE_DATE_EPOCH=$(git show -s --format=%ct) GOOS= GOARCH= go run ./internal/cli/manual -man $out/man
for page in $out/man/*; do
  gzip -9n <"$page" >"$out/man-gz/${page##*/}.gz"
done
