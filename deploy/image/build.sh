#!/usr/bin/env bash
# Build the image: deploy/image/build.sh [--flavour cpu|gpu] [--wheel-index URL] [--base IMAGE] [--tag NAME] [FLAG...]
#
# Takes docker, podman or buildah, whichever is there; PLACERAY_BUILDER names another command. Further flags are its own.
# --flavour cpu takes PyTorch's wheels without CUDA from its own index; `--wheel-index ''` takes PyPI's, which bring CUDA.
set -euo pipefail
cd "$(dirname "$0")/../.."

flavour=cpu index=default base="" tag=placeray:latest flags=()
while (($#)); do
    case $1 in
        --flavour) flavour=$2 && shift 2 ;;
        --wheel-index) index=$2 && shift 2 ;;
        --base) base=$2 && shift 2 ;;
        --tag) tag=$2 && shift 2 ;;
        --help) sed -n '2,6s/^# \{0,1\}//p' "$0" && exit ;;
        *) flags+=("$1") && shift ;;
    esac
done
case $flavour in cpu | gpu) ;; *) echo "--flavour is cpu or gpu, not $flavour" >&2 && exit 2 ;; esac
if [[ $index == default ]]; then
    index=""
    [[ $flavour == gpu ]] || index=https://download.pytorch.org/whl/cpu
fi

# With CUDA measured (27 GB) with buildah and the vfs driver, which copies each layer; without it estimated.
needed=30
[[ -z $index ]] || needed=10
root=${PLACERAY_IMAGE_ROOT:-/var/lib}
free=$(($(df --output=avail -B1 "$root" | tail -n 1) >> 30))
echo "build: $flavour, wheels of PyTorch from ${index:-PyPI, with CUDA}; needs about $needed GB below $root, $free GB are free"
if ((free < needed)); then
    echo "build: too little room; free some, or set PLACERAY_IMAGE_ROOT to where your builder keeps images" >&2
    exit 7
fi

builder=${PLACERAY_BUILDER:-}
for name in docker podman buildah; do
    [[ -n $builder ]] || ! type -P "$name" >/dev/null || builder="$name build"
done
[[ -n $builder ]] || { echo "build: none of docker, podman and buildah is installed: install one" >&2 && exit 2; }
# shellcheck disable=SC2086  # a command of several words
exec $builder "${flags[@]}" --build-arg "FLAVOUR=$flavour" --build-arg "WHEEL_INDEX=$index" ${base:+--build-arg "BASE=$base"} \
    --tag "$tag" --file deploy/image/Containerfile .
