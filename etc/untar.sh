#!/usr/bin/env bash
# Extracts tar archives safely, each into a folder of its name.
set -u

usage() {
  cat <<'TEXT'
usage: etc/untar.sh [-h] [ARCHIVE ...]

Extracts every ARCHIVE, or without arguments every *.tar in this folder, into a folder of its name
beside it: photos.tar into photos/. Archives in an archive (ILSVRC2012_img_train.tar is a tar of
one tar per class) are extracted in the same way and then removed from the folder.

An archive is refused, and nothing of it extracted, if a member would leave the folder: absolute
names, names or link targets with "..", absolute link targets, devices. A folder that is there
already is left as it is, so that the command can be run again after an interruption.

Exit status: 0 all extracted or there already, 1 an archive was refused or is damaged.
TEXT
}

refuse() {
  printf 'error: %s: %s\n' "$1" "$2" >&2
  return 1
}

# Lists an archive's members and refuses those that would leave the folder.
check() {
  local archive=$1 names details found
  names=$(tar -tPf "$archive" 2>/dev/null) && details=$(tar -tPvf "$archive" 2>/dev/null) ||
    { refuse "$archive" "not a whole tar archive"; return; }
  if found=$(grep -E -m 1 '^/|(^|/)\.\.(/|$)' <<<"$names"); then
    refuse "$archive" "member leaves the folder: $found"
  elif found=$(grep -E -m 1 '^[lh].* (->|link to) (/|(.*/)?\.\.(/|$))' <<<"$details"); then
    refuse "$archive" "link leaves the folder: $found"
  elif found=$(grep -E -m 1 '^[^-dlh]' <<<"$details"); then
    refuse "$archive" "neither file, folder nor link: $found"
  fi
}

# Extracts one archive, then those in it. FOLDER.incomplete is thrown away by the next attempt,
# FOLDER.partial (only archives in it are left to do) is gone on with, FOLDER is finished.
extract() {
  local archive=$1 folder inner
  case $archive in /* | ./*) ;; *) archive=./$archive ;; esac # "host:file" would be remote
  [ -f "$archive" ] || { refuse "$1" "no such file"; return; }
  folder=${archive%.gz}
  folder=${folder%.tar}
  [ "$folder" != "$archive" ] || { refuse "$1" "expected a name in .tar or .tar.gz"; return; }
  [ ! -e "$folder" ] || return 0
  if [ ! -d "$folder.partial" ]; then
    check "$archive" || return
    rm -rf "$folder.incomplete"
    mkdir "$folder.incomplete" && tar -xof "$archive" -C "$folder.incomplete" &&
      mv "$folder.incomplete" "$folder.partial" || { refuse "$1" "cannot be extracted"; return; }
  fi
  for inner in "$folder.partial"/*.tar; do
    [ -f "$inner" ] && [ ! -L "$inner" ] && [ ! -e "${inner%.tar}" ] || continue
    extract "$inner" && rm -f "$inner" || return
  done
  mv "$folder.partial" "$folder"
}

main() {
  local archive status=0
  case ${1-} in -h | --help) usage; exit 0 ;; esac
  [ $# -gt 0 ] || set -- ./*.tar
  [ "$1" != './*.tar' ] || [ -e "$1" ] || { refuse "$PWD" "no *.tar here"; exit 1; }
  for archive; do
    extract "$archive" || status=1
  done
  exit $status
}

main "$@"
