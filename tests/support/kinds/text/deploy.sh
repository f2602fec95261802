#!/bin/sh
# build the site and copy it to the server
set -eu

target="${1:-staging}"
stamp=$(date +%Y%m%d-%H%M)

case "$target" in
    staging)    host=staging.example.org ;;
    production) host=www.example.org ;;
    *)          echo "unknown target: $target" >&2; exit 2 ;;
esac

rm -rf build
mkdir build

for page in pages/*.md; do
    name=$(basename "$page" .md)
    echo "rendering $name"
    markdown "$page" > "build/$name.html"
done

if [ "$target" = production ]; then
    printf 'Really publish to %s? ' "$host"
    read -r answer
    [ "$answer" = yes ] || exit 1
fi

tar czf "site-$stamp.tar.gz" build
scp "site-$stamp.tar.gz" "$host:/srv/releases/"
ssh "$host" "cd /srv/releases && tar xzf site-$stamp.tar.gz"
