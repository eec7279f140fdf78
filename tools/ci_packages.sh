#!/usr/bin/env bash
# Installs what some tests need of Debian, a browser and a small TeX, where continuous integration may do so.
# Without them those tests are skipped, so a failure here is told and is none of the run.
set -uo pipefail

missing=()
for package in chromium chromium-driver texlive-latex-base texlive-latex-recommended texlive-science; do
  dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  printf '[ci] not installed: %s; the tests that need them are skipped\n' "${missing[*]}" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
printf '[ci] installing %s\n' "${missing[*]}" >&2
for attempt in 1 2; do
  apt-get update -qq >/dev/null 2>&1
  log=$(apt-get install -y -qq --no-install-recommends "${missing[@]}" 2>&1) && exit 0
done
printf '%s\n[ci] warning: apt-get failed; the tests that need these packages are skipped\n' "$(tail -n 5 <<<"$log")" >&2
