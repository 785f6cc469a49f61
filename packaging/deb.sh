#!/bin/sh
# Makes a Debian package of what `make install` installs: packaging/deb.sh DIRECTORY
#
# For the release of Debian that this machine runs: what the program is linked with becomes Depends, what is private goes
# along. Needs dpkg-dev (dpkg-shlibdeps, dpkg-architecture). REVISION=1 is the last part of the version.
set -eu
cd "$(dirname "$0")/.."

out=$1
stage=$out/chatmux
arch=$(dpkg --print-architecture)
release=$(sed -n 's/^VERSION_ID="\{0,1\}\([0-9]*\).*/\1/p' /etc/os-release)
version=$(sed -n 's/.*CM_VERSION "\(.*\)".*/\1/p' include/chatmux/base/version.h)-${REVISION:-1}+deb$release
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}

rm -rf "$stage"
mkdir -p "$stage/DEBIAN"
make install DESTDIR="$(realpath "$stage")" PREFIX=/usr >/dev/null

# A package may hold no more than its control file says, in Debian's places and modes.
gzip -9n "$stage/usr/share/man/man1/chatmux.1"
sed -e 's/^$/./' -e 's/^/ /' LICENSE | cat packaging/debian/copyright - >"$stage/usr/share/doc/chatmux/copyright"
{
    printf 'chatmux (%s) unstable; urgency=medium\n\n' "$version"
    printf '  * Built from the sources of this version.\n\n'
    printf ' -- chatmux contributors <root@localhost>  %s\n' "$(date -u -R -d "@$epoch")"
} | gzip -9n >"$stage/usr/share/doc/chatmux/changelog.Debian.gz"

# dpkg-shlibdeps looks for a source package around it, and finds the private libraries by -l.
shlibs=$out/shlibdeps
rm -rf "$shlibs"
mkdir -p "$shlibs/debian"
printf 'Source: chatmux\n\nPackage: chatmux\nArchitecture: any\n' >"$shlibs/debian/control"
private=$(find "$stage/usr/lib/chatmux" -type f -name '*.so.*' -exec realpath {} + 2>/dev/null || :)
# shellcheck disable=SC2086 # a list of names
depends=$(program=$(realpath "$stage/usr/bin/chatmux"); libs=$(realpath -m "$stage/usr/lib/chatmux")
    cd "$shlibs" && dpkg-shlibdeps -O --ignore-missing-info -l"$libs" "$program" $private 2>shlibdeps.log |
        sed -n 's/^shlibs:Depends=//p')
[ -n "$depends" ] || { cat "$shlibs/shlibdeps.log" >&2; exit 1; }

sed -e "s|@VERSION@|$version|" -e "s|@ARCH@|$arch|" -e "s|@DEPENDS@|$depends|" \
    -e "s|@SIZE@|$(du -sk --exclude=DEBIAN "$stage" | cut -f1)|" packaging/debian/control >"$stage/DEBIAN/control"
for script in postinst prerm postrm; do
    install -m 755 "packaging/debian/$script" "$stage/DEBIAN/$script"
done
(cd "$stage" && find usr -type f -exec md5sum {} + >DEBIAN/md5sums)
find "$stage" -depth -exec touch -h -d "@$epoch" {} +
chmod -R u=rwX,go=rX "$stage"

deb=$out/chatmux_${version}_$arch.deb
rm -f "$deb"
SOURCE_DATE_EPOCH=$epoch dpkg-deb --root-owner-group --build "$stage" "$deb" >/dev/null
echo "$deb"
