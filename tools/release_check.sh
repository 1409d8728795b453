#!/usr/bin/env bash
# Builds the sdist and the wheel, installs each into an environment that has nothing else of eqm, and tries it.
# Usage: tools/release_check.sh PYTHON, an interpreter whose pip knows where torch comes from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD work=$PWD/build/release python=$1
torch=$(sed -n 's/^torch==//p' constraints.txt)

rm -rf "$work" && mkdir -p "$work/elsewhere"
"$python" -m venv "$work/env"
pip() { "$work/env/bin/python" -m pip -qq --disable-pip-version-check --no-input "$@"; }

echo "==> Building"
pip install build
"$work/env/bin/python" -m build --outdir "$work/dist" >"$work/build.log" || { cat "$work/build.log" >&2; exit 1; }
ls -l "$work/dist"
"$work/env/bin/python" - "$work"/dist/*.whl <<'PY'
import sys, zipfile
names = zipfile.ZipFile(sys.argv[1]).namelist()
wanted = ("py.typed", "__init__.pyi", "models/weights/fashion-mnist/model.safetensors", "data/small/mnist-5k.npz")
missing = [name for name in wanted if f"eqm/{name}" not in names]
extra = [n for n in names if not n.startswith(("eqm/", "eqm-"))]
if missing or extra:
    sys.exit(f"the wheel lacks {missing}, and holds {extra} which it should not")
PY

echo "==> Installing torch $torch and what eqm needs"
pip install --no-compile --no-deps "torch==$torch+cpu" 2>/dev/null || pip install --no-compile --no-deps "torch==$torch"
for package in "$work"/dist/*.whl "$work"/dist/*.tar.gz; do
  echo "==> Trying $(basename "$package")"
  pip uninstall -y eqm 2>/dev/null || true
  pip install --no-compile --constraint constraints.txt "$package"
  ( cd "$work/elsewhere"
    unset PYTHONPATH
    "$work/env/bin/python" - "$root" <<'PY'
import pathlib, sys, eqm
place = pathlib.Path(eqm.__file__)
assert "site-packages" in place.parts, f"eqm was imported from {place}"
PY
    "$work/env/bin/eqm" sample fashion-mnist --count 4 --output "$package.png"
    "$work/env/bin/python" -m eqm --version
    "$work/env/bin/eqm" denoise fashion-mnist fashion-mnist-test:0-1 --add 0.5 --output "$package.denoised.png"
    test -s "$package.png" && test -s "$package.denoised.png" )
done
echo "==> The wheel and the sdist work"
